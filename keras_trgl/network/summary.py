"""The table of stages and heads that `GreedyModel.summary` prints."""

import math
from collections.abc import Sequence
from typing import Any

from keras_trgl.layers.chain import output_shape
from keras_trgl.network.staged_network import StagedNetwork
from keras_trgl.recording import row_of


def _count(layer: Any) -> tuple[int, int]:
    """Give trainable parameters and all parameters, the energy's weight not counted."""
    trained = {id(variable) for variable in layer.trainable_variables}
    # The energy's weight is a variable that no optimizer trains and no export has.
    skipped = {id(v) for v in getattr(getattr(layer, "regularizer", None), "variables", [])}
    sizes = {id(v): math.prod(v.shape) for v in layer.weights if id(v) not in skipped}
    return sum(n for key, n in sizes.items() if key in trained), sum(sizes.values())


def _short(device: Any) -> str:
    """Give a device's name without what every device of this process has before it."""
    return str(device).removeprefix("/job:localhost/replica:0/task:0/device:")


def in_short(model: Any) -> str:
    """Give what `repr` shows of a `GreedyModel`: its parts, and how far it is made.

    Args:
        model: `GreedyModel`, built or not.

    Returns:
        str, one line.
    """
    if not hasattr(model, "heads"):
        return f"{type(model).__name__}(not made yet)"
    sizes = [len(stage.blocks) for stage in model.stages]
    made = "not built"
    if model.built:
        numbers = sum(_count(layer)[1] for layer in (*model.stages, *model.heads))
        made = f"built, {numbers:,} parameters"
    parts = f"stages of {sizes} blocks, heads {row_of(model.heads)}"
    return f"{type(model).__name__}({parts}, {model.method!r}, {model.regime!r}, {made})"


def stage_table(name: str, network: StagedNetwork, optimizers: Sequence[Any]) -> str:
    """Give the summary of a built model as text.

    Args:
        name: str. The model's name.
        network: its stages and heads.
        optimizers: one per stage, or empty before `compile`.

    Returns:
        str, one row per stage, head and layer of the method.

    Raises:
        ValueError: the network is not built.
    """
    shape, method, devices = network.built_shape(), network.method, network.placement.devices
    numbers = ("blocks", "residuals", "output", "parameters", "trained")
    header: tuple[str, ...] = ("", "layer", *numbers, "by")
    placed = any(devices)
    header = (*header, "device") if placed else header
    rows: list[tuple[str, ...]] = []
    total = trained = 0
    for k, part in enumerate(network.parts, start=1):
        stage, head = part.stage, part.head
        by = f"loss {k}, {optimizers[k - 1].name}" if optimizers else f"loss {k}"
        shape = stage.compute_output_shape(shape)
        head_shape = output_shape(head, shape)
        units = str(len(stage.residual_units))
        more = [(title, layer, "", "", "") for title, layer in part.layers.items()]
        for kind, layer, blocks, residuals, output in (
            ("stage", stage, str(len(stage.blocks)), units, str(tuple(shape))),
            ("head", head, "", "", str(tuple(head_shape))),
            *more,
        ):
            trainable, count = _count(layer)
            total += count
            trained += trainable
            rows.append(
                (
                    f"{kind} {k}",
                    layer.name if kind == "stage" else type(layer).__name__,
                    blocks,
                    residuals,
                    output,
                    f"{count:,}",
                    f"{trainable:,}",
                    by if trainable else "nothing (frozen)",
                    *([_short(devices[k - 1])] if placed else []),
                )
            )
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    lines.insert(1, "-" * max(len(line) for line in lines))
    return "\n".join(
        [
            f'Model "{name}": {network.num_stages} stage{"s" if network.num_stages > 1 else ""}, '
            f"{method!r}",
            "",
            *lines,
            "",
            f"Parameters: {total:,}, of them trained: {trained:,}. No gradient crosses a stage.",
        ]
    )
