"""What crosses a cut: the tensors that later calls need, and which of them is the main one."""

from collections.abc import Sequence

from keras_trgl.network.call_kinds import is_main
from keras_trgl.network.calls import Flat, Value


def crossing(flat: Flat, main: Value) -> list[list[Value]]:
    """Give what later calls need after each call, the call's own outputs last.

    Args:
        flat: the model's calls.
        main: the output that heads read.
    """
    last = {value: index for index, call in enumerate(flat.calls) for value in call.inputs}
    last[main] = len(flat.calls)
    live = [value for value in flat.inputs if value in last]
    rows = []
    for index, call in enumerate(flat.calls):
        live = [value for value in (*live, *call.outputs) if last.get(value, -1) > index]
        rows.append(live)
    return rows


def main_first(
    flat: Flat, start: int, place: int, live: Sequence[Value], residuals: Sequence[int]
) -> list[Value]:
    """Give what crosses the cut after a call with the main tensor first.

    That is the output of the stage's last sum, else of its last layer with weights; where this does
    not cross, the first that was made of it.

    Args:
        flat: the model's calls.
        start: position of the stage's first call.
        place: position of its last call.
        live: what crosses after it.
        residuals: number of residuals that end in each call.

    Raises:
        ValueError: nothing that the stage made, and heads can read, crosses.
    """
    made = {
        value: index
        for index in range(start, place + 1)
        for value in flat.calls[index].outputs
        if "float" in value.dtype
    }
    own = sorted((value for value in live if value in made), key=made.__getitem__)
    if not own:
        raise ValueError(
            "A stage must make numbers that go on. Received: a stage that ends after "
            f"{flat.calls[place].name!r}, where all that crosses was there before it, or is no "
            "float. Cut elsewhere."
        )
    stage = range(start, place + 1)
    weighty = [index for index in stage if residuals[index]]
    weighty = weighty or [index for index in stage if is_main(flat.calls[index])]
    below = set(flat.calls[weighty[-1]].outputs) if weighty else set(own)
    for index in range(weighty[-1] + 1 if weighty else start, place + 1):
        if below & set(flat.calls[index].inputs):
            below |= set(flat.calls[index].outputs)
    first = next((value for value in own if value in below), own[-1])
    return [first, *(value for value in live if value is not first)]
