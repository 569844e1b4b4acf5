"""The table of stages and heads that `GreedyModel.summary` prints."""

import math
from collections.abc import Sequence
from typing import Any

import keras

from keras_trgl.checks import check_integer
from keras_trgl.html_table import Table
from keras_trgl.layers.chain import main_shape, output_shape
from keras_trgl.layers.stage import residual_units
from keras_trgl.network.ownership import method_layers
from keras_trgl.network.part import Part
from keras_trgl.network.pieces import pieces_of
from keras_trgl.network.staged_network import StagedNetwork
from keras_trgl.recording import row_of
from keras_trgl.splitting.network_bytes import NetworkBytes, WayToTrain
from keras_trgl.types import Shape

NUMBERS = ("blocks", "residuals", "output", "parameters", "trained")
"""Columns between a layer's name and what trains it."""


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


def _parameters(layer: Any) -> tuple[str, str]:
    """Give parameters and trained ones as a table's cells."""
    trainable, count = _count(layer)
    open_ = not count and not getattr(layer, "built", True)
    return ("not built", "") if open_ else (f"{count:,}", f"{trainable:,}")


def _inner_rows(layers: Sequence[Any], shape: Any, depth: int = 1) -> list[tuple[str, ...]]:
    """Give a row per layer of a chain, and of the models among them.

    Args:
        layers: sequence of layers.
        shape: what the chain is called on, or `None`.
        depth: int ≥ 1. How deep the chain lies in the network.
    """
    rows: list[tuple[str, ...]] = []
    for layer in layers:
        shape = None if shape is None else output_shape(layer, shape)
        output = "" if shape is None else str(tuple(shape))
        units = len(residual_units(layer))
        residuals = str(units) if units else ""
        rows.append(("  " * depth + layer.name, type(layer).__name__, "", residuals, output))
        rows[-1] = (*rows[-1], *_parameters(layer), "")
        if isinstance(layer, keras.Sequential):
            rows += _inner_rows(layer.layers, None, depth + 1)
        elif isinstance(layer, (keras.Model, Part)):
            inner = [one for one in layer.layers if not isinstance(one, keras.layers.InputLayer)]
            rows += _inner_rows(inner, None, depth + 1)
    return rows


def _rows(
    network: StagedNetwork, optimizers: Sequence[Any], expand_nested: bool
) -> list[tuple[tuple[str, ...], int]]:
    """Give the table's rows, each with the position of its stage."""
    rows: list[tuple[tuple[str, ...], int]] = []
    shape = network.input_shape
    for k, part in enumerate(network.parts):
        stage, head, before = part.stage, part.head, shape
        by = f"loss {k + 1}, {optimizers[k].name}" if optimizers else f"loss {k + 1}"
        shape = None if shape is None else stage.compute_output_shape(shape)
        outputs = ("", "")
        if shape is not None:
            outputs = (str(shape), str(tuple(output_shape(head, main_shape(shape)))))
        units = str(len(stage.residual_units))
        more = [(title, layer, "", "", "") for title, layer in part.layers.items()]
        for kind, layer, blocks, residuals, output in (
            ("stage", stage, str(len(stage.blocks)), units, outputs[0]),
            *([("head", head, "", "", outputs[1])] if part.predicts else []),
            *more,
        ):
            name = layer.name if kind == "stage" else type(layer).__name__
            is_trained = bool(layer.trainable_variables) or not layer.built
            cells = (f"{kind} {k + 1}", name, blocks, residuals, output, *_parameters(layer))
            rows.append(((*cells, by if is_trained else "nothing (frozen)"), k))
            if expand_nested and kind == "stage":
                rows += [(row, k) for row in _inner_rows(stage.blocks, before)]
    return rows


def counted_bytes(
    network: StagedNetwork, optimizers: Sequence[Any], batch_size: int, settings: dict[str, Any]
) -> tuple[list[int], int, int]:
    """Give the bytes that each stage takes at its worst moment, what stands, and the peak of all.

    Args:
        network: its stages and heads, built.
        optimizers: one per stage, or empty before `compile`.
        batch_size: int ≥ 1, examples.
        settings: what `compile` was given; `micro_batches` and `remat` count.

    Raises:
        ValueError: the model is not built.
    """
    check_integer("batch_size", batch_size, 1)
    shape = network.input_shape
    if shape is None:
        raise ValueError(
            "Bytes are told once the model is built. Received: an unbuilt model. Call it on data "
            "or `model.build(input_shape)` first."
        )
    remat, blocks = settings.get("remat", False), [stage.blocks for stage in network.stages]
    if remat:
        # A model that was cut has a block per stage, of which its units are made anew.
        blocks = [pieces_of(own) for own in blocks]
    heads: list[Any] = []
    for part, own in zip(network.parts, blocks, strict=True):
        heads += [*[[]] * (len(own) - 1), _beside(network.method, part)]
    reduction = next((s.energy_reduction for s in network.stages if s.energy_reduction), None)
    optimizer = optimizers[0] if optimizers else None
    row, data = [block for own in blocks for block in own], main_shape(shape)[1:]
    method = network.method
    counted = NetworkBytes(row, heads, data, batch_size, optimizer, reduction, method=method)
    way = WayToTrain(
        tuple(map(len, blocks)),
        settings.get("micro_batches", 1),
        int(remat) if remat else None,
    )
    return counted.stages(way), counted.standing(way), counted.total(way)


def _beside(method: Any, part: Any) -> list[tuple[Any, Shape]]:
    """Give a stage's head and its method's nets, each with the shape of what it takes."""
    found = [(part.head, part.place.feature_shape)] if part.predicts else []
    shapes = {name: shape for name, (_, shape) in method_layers(method, part.place).items()}
    return [*found, *((layer, shapes[name]) for name, layer in part.layers.items())]


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def stage_table(
    name: str,
    network: StagedNetwork,
    optimizers: Sequence[Any],
    expand_nested: bool = False,
    batch_size: int | None = None,
    settings: dict[str, Any] | None = None,
) -> str:
    """Give the summary of a model as text.

    Args:
        name: str. The model's name.
        network: its stages and heads; outputs and parameters are told once it is built.
        optimizers: one per stage, or empty before `compile`.
        expand_nested: bool. Whether blocks, and layers of models among them, have rows too.
            Defaults to `False`.
        batch_size: int ≥ 1, examples, to tell bytes too, or `None`. Defaults to `None`.
        settings: what `compile` was given. Defaults to `None`.

    Returns:
        str, one row per stage, head and layer of the method.
    """
    devices, is_built = network.placement.devices, network.input_shape is not None
    header: tuple[str, ...] = ("", "layer", *NUMBERS, "by")
    placed = any(devices)
    header = (*header, "device") if placed else header
    table = [
        (*row, *([_short(devices[k])] if placed else []))
        for row, k in _rows(network, optimizers, expand_nested)
    ]
    told = ""
    if batch_size is not None:
        sizes, standing, peak = counted_bytes(network, optimizers, batch_size, settings or {})
        header = (*header, "bytes")
        cells = {f"stage {k}": _mib(size) for k, size in enumerate(sizes, start=1)}
        table = [(*row, cells.get(row[0], "")) for row in table]
        told = (
            f" At batch size {batch_size} training takes {_mib(peak)} at most, predicted: that of "
            f"the largest stage, and {_mib(standing)} of weights, slots and data."
        )
    widths = [max(len(row[i]) for row in [header, *table]) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *table]
    ]
    lines.insert(1, "-" * max(len(line) for line in lines))
    end = _total(network) + (told if is_built else "")
    return "\n".join([_title(name, network), "", *lines, "", end])


def _title(name: str, network: StagedNetwork) -> str:
    count = network.num_stages
    return f'Model "{name}": {count} stage{"s" if count > 1 else ""}, {network.method!r}'


def _total(network: StagedNetwork) -> str:
    """Give the sentence below the table."""
    if network.input_shape is None:
        return (
            "Not built: shapes and parameters are told once it is. Call it on data, `fit`, or "
            "`model.build(input_shape)`."
        )
    counts = [
        _count(layer)
        for part in network.parts
        for layer in (part.stage, part.head, *part.layers.values())
    ]
    trained, total = (sum(numbers) for numbers in zip(*counts, strict=True))
    return f"Parameters: {total:,}, of them trained: {trained:,}. No gradient crosses a stage."


def network_table(name: str, network: StagedNetwork) -> Table:
    """Give what a notebook shows of a model: a row per stage, with its head.

    Args:
        name: str. The model's name.
        network: its stages and heads.
    """
    header = ("stage", "layer", "blocks", "parameters", "output", "head", "parameters", "output")
    rows: list[tuple[str, ...]] = []
    for (kind, layer, blocks, _, output, count, *_), k in _rows(network, (), False):
        if kind.startswith("stage "):
            rows.append((str(k + 1), layer, blocks, count, output, "none", "", ""))
        elif kind.startswith("head "):
            rows[-1] = (*rows[-1][:5], layer, count, output)
    return Table(_title(name, network), header, rows, _total(network))
