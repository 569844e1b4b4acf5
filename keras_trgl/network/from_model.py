"""A user's Keras model cut into stages over its own layers.

Nothing is made anew: a stage calls the user's layers as the model does. Sums x + r(x), those inside
layers too, are found by tracing the model once; in training their energies are found as they are
made.
"""

import dataclasses
import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_trgl.checks import check_choice
from keras_trgl.layers.stage import Stage, residual_units
from keras_trgl.network.bringing import FAILS, flat_model
from keras_trgl.network.call_kinds import follows, is_main
from keras_trgl.network.calls import Flat, Value
from keras_trgl.network.crossing import crossing, main_first
from keras_trgl.network.cut_table import CutRow, CutTable
from keras_trgl.network.named_sums import NamedSums
from keras_trgl.network.part import Distance, NamedSum, Part, Stretch
from keras_trgl.network.sum_watch import Key, SumPlace, find_sums
from keras_trgl.network.top import check_no_top, top_start
from keras_trgl.network.units import cut_places, find_units

ON_NO_RESIDUAL = ("warn", "raise", "distance")


@dataclasses.dataclass
class CutModel:
    """A model, and what it was cut into.

    Attributes:
        model: the user's model, or a copy of it, whose layers the stages call.
        stages: list of K `Stage`, each of one `Part`.
        top: `Part` of the model's own classifier, or `None` where heads are all given.
        flat: the model's calls, up to where the last stage or the top ends.
        places: positions of the K - 1 calls after which it is cut.
        table: `CutTable`.
    """

    model: Any
    stages: list[Stage]
    top: Part | None
    flat: Flat
    places: list[int]
    table: CutTable

    @property
    def left_out(self) -> list[Any]:
        """The model's weights that neither a stage nor the top has."""
        parts = [*(stage.blocks[0] for stage in self.stages), *([self.top] if self.top else [])]
        used = {id(weight) for part in parts for weight in part.weights}
        return [weight for weight in self.model.weights if id(weight) not in used]


def split_model(
    model: Any,
    cuts: Any,
    residuals: Any = "auto",
    on_no_residual: str = "warn",
    head_input: str | None = None,
    with_top: bool = False,
    at: bool = False,
) -> CutModel:
    """Cut a model into stages over its own layers.

    Args:
        model: built `keras.Model`. Its layers are used as they are.
        cuts: int K ≥ 1, for stages of nearly equal numbers of residuals; or list of sizes in
            units; or list of names of the K - 1 layers after which to cut.
        residuals: `"auto"`, or a dict of a sum's name to the name of the layer whose output is
            its residual, or to `None` for a sum that has no residual; goes before the rules.
            Defaults to `"auto"`.
        on_no_residual: `"warn"`, `"raise"` or `"distance"`. Defaults to `"warn"`.
        head_input: name of the layer whose output is the features of the last stage, or `None`
            for the output of highest rank. Defaults to `None`.
        with_top: bool. Whether the model's own classifier is the last head. Defaults to `False`.
        at: bool. Whether `cuts` are positions of calls, as a file has them. Defaults to `False`.

    Returns:
        `CutModel`.

    Raises:
        TypeError: `model` is no Keras model, `cuts` nothing of the above, `residuals` no dict.
        ValueError: the model cannot be read or traced; has no layers, too few units or its
            classifier still on; or a stage would have no weights or share them with another.
    """
    check_choice("on_no_residual", on_no_residual, ON_NO_RESIDUAL)
    if residuals is None or residuals == "auto":
        residuals = {}
    if not isinstance(residuals, Mapping):
        raise TypeError(
            "`residuals` must be 'auto', or a dict of a sum's name to its residual layer's name. "
            f"Received: residuals={residuals!r}."
        )
    flat = _up_to_main(flat_model(model), head_input)
    _check_layers(model, flat)
    main = flat.outputs[0]
    sums = _found_sums(model, flat, residuals)
    end = len(flat.calls)
    if with_top:
        end = top_start(flat, main, sums.counts)
    elif head_input is None:
        check_no_top(model, flat, main, sums.counts)
    ends = main if end == len(flat.calls) else crossing(flat, main)[end - 1][0]
    body = Flat(flat.inputs, [ends], flat.calls[:end], flat.structure)
    units = find_units(body, ends, sums.counts[:end])
    places = list(cuts) if at else cut_places(cuts, units, body)
    borders = [-1, *places, end - 1]
    between = _crossings(body, places, sums.counts)
    stages = [
        _stage(
            k,
            _slice(body, first + 1, last + 1, *between[k - 1 : k + 1]),
            first + 1,
            sums,
            on_no_residual,
        )
        for k, (first, last) in enumerate(itertools.pairwise(borders), start=1)
    ]
    _check_stages(stages)
    top = None
    if with_top:
        top = Part(Stretch(_slice(flat, end, len(flat.calls), [ends], [main])), "top")
    _tell(stages, sums, on_no_residual)
    table = _table(stages)
    return CutModel(model, stages, top, flat, places, table)


def _up_to_main(flat: Flat, head_input: str | None) -> Flat:
    """Give the calls that the last stage's features come from.

    Raises:
        ValueError: `head_input` names no layer.
    """
    main = max(flat.outputs, key=lambda one: len(one.shape))
    if head_input is not None:
        named = [call for call in flat.calls if call.name == head_input]
        if not named:
            raise ValueError(
                f"`head_input` must name a layer of the model. Received: {head_input!r}. "
                "`model.summary()` shows names."
            )
        main = named[-1].outputs[0]
    needed, calls = {main}, []
    for call in reversed(flat.calls):
        if needed & set(call.outputs):
            needed |= set(call.inputs)
            calls.append(call)
    inputs = [one for one in flat.inputs if one in needed]
    return Flat(inputs, [main], calls[::-1], flat.structure)


def _check_layers(model: Any, flat: Flat) -> None:
    if not flat.calls:
        raise ValueError(
            f"`model` must have layers between input and output. Received: {model.name}, which "
            "has none."
        )


def _found_sums(model: Any, flat: Flat, residuals: Mapping[str, Any]) -> NamedSums:
    """Trace the model, and name what was found.

    Raises:
        ValueError: the model cannot be traced, or `residuals` names something it has not.
    """
    try:
        found = find_sums(flat, flat.outputs[0])
    except FAILS as error:
        shown = " ".join(str(error).split())[:200]
        raise ValueError(
            f"`model` must be one that TensorFlow can trace in training mode. Received: "
            f"{model.name}, where that fails: {type(error).__name__}: {shown} Mend the layer, or "
            "give `GreedyModel` a list of stages."
        ) from error
    return NamedSums(flat, found, residuals)


def _crossings(flat: Flat, places: Sequence[int], residuals: Sequence[int]) -> list[list[Value]]:
    """Give what stages take and give: the data, what crosses each cut, and the features."""
    rows, start, found = crossing(flat, flat.outputs[0]), 0, [flat.inputs]
    for place in places:
        found.append(main_first(flat, start, place, rows[place], residuals))
        start = place + 1
    return [*found, flat.outputs]


def _slice(flat: Flat, start: int, stop: int, first: list[Value], last: list[Value]) -> Flat:
    """Give the calls of a stretch, from what crosses before it to what crosses after it."""
    structure: Any = tuple(first) if len(first) > 1 else first[0]
    if start == 0 and len(keras.tree.flatten(flat.structure)) > 1:
        structure = flat.structure
    return Flat(first, last, flat.calls[start:stop], structure)


def _stage(k: int, flat: Flat, start: int, sums: NamedSums, on_no_residual: str) -> Stage:
    named, by_rule = sums.between(start, start + len(flat.calls))
    if start and len(flat.inputs) > 1:
        # A stage may get both terms of a sum, and not see the way between them: at every trace
        # the rule judges the stage alone, so it does here.
        own = {place.key: place for place in find_sums(flat, flat.outputs[0]).places}
        named, by_rule = _within(named, own), frozenset(own)
    distances: list[Distance] = []
    marked = any(residual_units(call.operation) for call in flat.calls if call.is_layer)
    if not named and not marked and on_no_residual == "distance":
        distances = _distances(flat)
    part = Part(Stretch(flat, named, distances, by_rule), f"part_{k}")
    return Stage([part], name=f"stage_{k}")


def _within(named: Sequence[NamedSum], own: Mapping[Key, SumPlace]) -> list[NamedSum]:
    """Give the sums of a stage; of a chain that a cut parts, what the rule finds in the stage."""
    kept = []
    for one in named:
        is_parted = any(call < 0 for (call, _), _ in one.place.terms)
        if is_parted and one.place.key in own:
            kept.append(NamedSum(one.name, own[one.place.key]))
        elif not is_parted:
            kept.append(one)
    return kept


def _distances(flat: Flat) -> list[Distance]:
    """Give T(x) - x for every unit of a layer with weights that keeps the shape."""
    found = []
    for index, call in enumerate(flat.calls):
        if not is_main(call) or len(call.inputs) != 1 or len(call.outputs) != 1:
            continue
        last = index
        while last + 1 < len(flat.calls) and _passes_on(flat, last):
            last += 1
        start, end = call.inputs[0], flat.calls[last].outputs[0]
        if start.shape == end.shape and start.dtype == end.dtype and "float" in end.dtype:
            found.append(Distance(f"{call.name}_distance", start, end, last))
    return found


def _passes_on(flat: Flat, index: int) -> bool:
    """Tell whether the next call is all that uses this one's output, and belongs to its unit."""
    output, following = flat.calls[index].outputs[0], flat.calls[index + 1]
    users = [call for call in flat.calls if output in call.inputs]
    return users == [following] and follows(following)


def _check_stages(stages: Sequence[Stage]) -> None:
    """Raise unless every stage has weights, and no two have the same.

    Raises:
        ValueError: a stage has none, or a layer with variables is called on both sides of a cut.
    """
    homes: dict[int, int] = {}
    for depth, stage in enumerate(stages, start=1):
        part: Any = stage.blocks[0]
        if not part.weights:
            names = " to ".join(
                dict.fromkeys(call.name for call in (part.calls[0], part.calls[-1]))
            )
            raise ValueError(
                f"Every stage needs a layer with weights. Received: stage {depth}, of {names}, "
                "without any. Cut elsewhere: `cuts` takes names of layers."
            )
        for layer in part.layers:
            for variable in layer.variables:
                home = homes.setdefault(id(variable), depth)
                if home != depth:
                    raise ValueError(
                        "A layer with weights, or random numbers, must lie in one stage. Received: "
                        f"{layer.name}, called in stages {home} and {depth}. Cut where both calls "
                        "are on one side, or give each call a layer of its own."
                    )


def _tell(stages: Sequence[Stage], sums: NamedSums, on_no_residual: str) -> None:
    """Warn of what is left out, and raise for stages without residuals where that is wanted.

    Raises:
        ValueError: a stage has no residual, with `on_no_residual="raise"`.
    """
    idle = [str(k) for k, stage in enumerate(stages, start=1) if not stage.residual_units]
    if idle and on_no_residual == "raise":
        raise ValueError(
            f"Every stage must have a residual, as on_no_residual='raise'. Received: none in stage "
            f"{', '.join(idle)}. Cut elsewhere, or give 'warn', or 'distance' for T(x) - x."
        )
    if sums.ambiguous:
        came = ", ".join(f"{name} of ({', '.join(of)})" for name, of in sums.ambiguous.items())
        pairs = {name: of[-1] for name, of in sums.ambiguous.items()}
        warnings.warn(
            "A sum must show which of its tensors is the residual; others are left out of the "
            f"energy. Received: {came}. Name the layers whose outputs are the residuals, for "
            f"instance `residuals={pairs}`, or `None` for none.",
            stacklevel=4,
        )
    if sums.unseen:
        warnings.warn(
            "Sums inside `tf.function`, `cond` and loops are not seen. Received: layers with one, "
            f"{', '.join(sums.unseen)}. Their energy is left out.",
            stacklevel=4,
        )


def _table(stages: Sequence[Stage]) -> CutTable:
    rows = []
    for depth, stage in enumerate(stages, start=1):
        part: Any = stage.blocks[0]
        crosses = part.stretch.flat.outputs
        sizes = [_bytes(value) for value in crosses]
        rows.append(
            CutRow(
                depth=depth,
                first=part.calls[0].name,
                last=part.calls[-1].name,
                crosses=tuple((one.name, one.shape, one.dtype) for one in crosses),
                residuals=len(stage.residual_units),
                parameters=sum(math.prod(weight.shape) for weight in part.weights),
                bytes=None if None in sizes else sum(size or 0 for size in sizes),
            )
        )
    return CutTable(rows)


def _bytes(value: Value) -> int | None:
    """Give the bytes of one example of a tensor, or `None` where an axis is not known."""
    sides = value.shape[1:]
    if None in sides:
        return None
    # Of a bool a byte.
    digits = "".join(filter(str.isdigit, value.dtype)) or "8"
    return math.prod(int(side or 1) for side in sides) * int(digits) // 8
