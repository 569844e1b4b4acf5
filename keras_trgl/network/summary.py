"""The table of stages and heads that `GreedyModel.summary` prints."""

import math
from collections.abc import Sequence
from typing import Any

from keras_trgl.layers.chain import output_shape
from keras_trgl.types import Shape


def _count(layer: Any) -> tuple[int, int]:
    """Give trainable parameters and all parameters, the energy's weight not counted."""
    trained = {id(variable) for variable in layer.trainable_variables}
    skipped = {id(v) for v in getattr(getattr(layer, "regularizer", None), "variables", [])}
    sizes = {id(v): math.prod(v.shape) for v in layer.weights if id(v) not in skipped}
    return sum(n for key, n in sizes.items() if key in trained), sum(sizes.values())


def _short(device: Any) -> str:
    """Give a device's name without what every device of this process has before it."""
    return str(device).removeprefix("/job:localhost/replica:0/task:0/device:")


def stage_table(
    name: str,
    input_shape: Shape,
    stages: Sequence[Any],
    heads: Sequence[Any],
    method: Any,
    optimizers: Sequence[Any],
    devices: Sequence[str | None],
) -> str:
    """Give the summary of a built model as text.

    Args:
        name: str. The model's name.
        input_shape: shape of the data, batch axis included.
        stages: built stages.
        heads: built heads.
        method: the method.
        optimizers: one per stage, or empty before `compile`.
        devices: full name of each stage's device, or `None`; shown where one has a name.

    Returns:
        str, one row per stage and head.
    """
    header: tuple[str, ...] = ("", "layer", "blocks", "output", "parameters", "trained", "by")
    placed = any(devices)
    header = (*header, "device") if placed else header
    rows: list[tuple[str, ...]] = []
    total = trained = 0
    shape = input_shape
    for k, (stage, head) in enumerate(zip(stages, heads, strict=True), start=1):
        by = f"loss {k}, {optimizers[k - 1].name}" if optimizers else f"loss {k}"
        shape = stage.compute_output_shape(shape)
        head_shape = output_shape(head, shape)
        for kind, layer, blocks, output in (
            ("stage", stage, str(len(stage.blocks)), shape),
            ("head", head, "", head_shape),
        ):
            trainable, count = _count(layer)
            total += count
            trained += trainable
            rows.append(
                (
                    f"{kind} {k}",
                    type(layer).__name__ if kind == "head" else layer.name,
                    blocks,
                    str(tuple(output)),
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
    settings = ", ".join(f"{key}={value!r}" for key, value in method.get_config().items())
    return "\n".join(
        [
            f'Model "{name}": {len(stages)} stage{"s" if len(stages) > 1 else ""}, '
            f"{type(method).__name__}({settings})",
            "",
            *lines,
            "",
            f"Parameters: {total:,}, of them trained: {trained:,}. No gradient crosses a stage.",
        ]
    )
