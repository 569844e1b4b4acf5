"""A model of either kind as its depths: its stages, or the layers at which a plain model is cut."""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_trgl.checks import check_integer, check_list
from keras_trgl.greedy_model import GreedyModel
from keras_trgl.layers.inner import data_format_of
from keras_trgl.network.bringing import flat_model
from keras_trgl.network.calls import Flat, Value, is_plain
from keras_trgl.network.door import Door
from keras_trgl.network.seen_by_depth import DepthStep, SeenByDepth, Walk, walk_of_stages
from keras_trgl.network.several_inputs import SeveralInputs, inputs_of
from keras_trgl.progress import Progress

DEPTH_OF_STAGES = "Depths count from 1 to the number of stages."


@dataclasses.dataclass(frozen=True)
class View:
    """A model as its depths: the way through them, and their names.

    Attributes:
        model: the model.
        walk: the way through all depths up to the deepest of them.
        names: dict of number, from 1, to how a depth is called: the same number, or the cut.
        formats: dict of number to where features that are images have their channels.
        check: function of data, which raises unless they have the shape that the model takes.
    """

    model: Any
    walk: Walk
    names: dict[int, Any]
    formats: dict[int, str | None]
    check: Callable[[Any], Any]

    @property
    def is_greedy(self) -> bool:
        """Whether depths are stages, which may have heads."""
        return isinstance(self.model, GreedyModel)

    def see(
        self, x: Any, wants: Collection[str], depths: Collection[int], batch_size: int, verbose: Any
    ) -> dict[str, Any]:
        """Give `SeenByDepth`'s dict of all rows, in NumPy arrays.

        Args:
            x: array, `(examples, …)`.
            wants: names of what is wanted.
            depths: numbers of the depths.
            batch_size: int ≥ 1, examples.
            verbose: as in `predict`.
        """
        check_integer("batch_size", batch_size, 1)
        seer = SeenByDepth(self.walk, wants, depths)
        done = Progress(math.ceil(len(x) / batch_size), 1 if verbose else 0, "batch")
        parts: dict[str, list[Any]] = {}
        for start in range(0, len(x), batch_size):
            for name, values in self.batch(seer, x[start : start + batch_size]).items():
                parts.setdefault(name, []).append(values)
            done()
        return {name: np.concatenate(values) for name, values in parts.items()}

    def batch(self, seer: SeenByDepth, x: Any) -> dict[str, Any]:
        """Give what is seen of one batch, in NumPy arrays.

        Args:
            seer: what sees.
            x: array, `(batch, …)`.
        """
        # Eagerly: a few batches are done before a function of a deep network is traced, and
        # TensorFlow warns of many traces.
        found = self.call(seer, x, training=False)
        return {name: keras.ops.convert_to_numpy(values) for name, values in found.items()}

    def call(self, function: Any, *args: Any, **names: Any) -> Any:
        """Call what runs on the stages' devices, which may be lost."""
        if not self.is_greedy:
            return function(*args, **names)
        return self.model.placement.call(function, *args, **names)


def view_of(model: Any, cuts: Any, reduction: str | None = None) -> View:
    """Give the depths of a model.

    Args:
        model: built `GreedyModel`, or a functional or sequential `keras.Model`.
        cuts: list of depths (of a `GreedyModel`; `None` is all) or of names of layers.
        reduction: of the energy, or `None` for none. Defaults to `None`.

    Raises:
        TypeError: something else than a Keras model, or cuts of another kind.
        ValueError: the model is not built; there is no such depth or layer; names of layers are
            not in the model's order.
    """
    if isinstance(model, GreedyModel):
        return _view_of_stages(model, cuts, reduction)
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` must be a `GreedyModel` or another `keras.Model`. Received: {model!r}."
        )
    return _view_of_cuts(model, cuts)


def _view_of_stages(model: Any, cuts: Any, reduction: str | None) -> View:
    if not model.built:
        raise ValueError(
            "A model must be built to be looked at. Received: an unbuilt model. Call it on data "
            "or `model.build(input_shape)` first."
        )
    depths = list(range(1, model.num_stages + 1))
    if cuts is not None:
        check_list("cuts", cuts, "depths", DEPTH_OF_STAGES)
        for depth in cuts:
            check_integer("cuts", depth, 1, DEPTH_OF_STAGES)
        strange = [depth for depth in cuts if depth > model.num_stages]
        if strange or not cuts:
            raise ValueError(
                f"Depths must be 1 to {model.num_stages}, the number of stages. Received: "
                f"cuts={list(cuts)}."
            )
        depths = sorted({int(depth) for depth in cuts})
    several = inputs_of(model.stages[0].blocks[0])
    if several is not None:
        _refuse_several(model, several.names)
    model.drain()
    last = max(depths)
    shape = model.input_shape
    walk = walk_of_stages(model.stages[:last], model.heads[:last], reduction, shape)
    formats = {
        depth: data_format_of([b for stage in model.stages[:depth] for b in stage.blocks])
        for depth in depths
    }
    door = Door(model.stages[0].blocks)
    names = {depth: depth for depth in depths}
    return View(model, walk, names, formats, lambda x: door.take(x, shape))


def _refuse_several(model: Any, names: Sequence[str]) -> None:
    raise ValueError(
        f"Diagnostics look at models of one input. Received: {model.name}, which takes "
        f"{len(names)}: {', '.join(map(str, names))}. Put them together before, as by "
        "`keras.ops.concatenate`."
    )


HINT = "Name layers of the model, in their order: `cuts=['block_1', 'block_2']`."


def _view_of_cuts(model: Any, cuts: Any) -> View:
    if cuts is None:
        raise ValueError(f"A plain model has no depths of its own. Received: cuts=None. {HINT}")
    check_list("cuts", cuts, "names of layers", HINT)
    if not is_plain(model):
        raise ValueError(
            "A plain model must be functional or sequential, built, and have no `call` of its own. "
            f"Received: {type(model).__name__} {model.name!r}. Write it as `keras.Model(inputs, "
            "outputs)`, a sequential one with a `keras.Input`."
        )
    # The calls of this one model: a layer may be called elsewhere too, and nothing is added to it.
    flat = flat_model(model)
    if len(flat.inputs) > 1:
        _refuse_several(model, [one.name for one in flat.inputs])
    given = _given_by_name(flat)
    unknown = [name for name in cuts if name not in given]
    if unknown or not cuts:
        raise ValueError(
            f"`cuts` must be names of the model's layers. Received: {list(cuts)}, of which "
            f"{unknown} are none; the model has {', '.join(list(given)[:8])}"
            f"{', …' if len(given) > 8 else ''}."
        )
    several = [name for name in cuts if len(given[name]) != 1]
    if several:
        raise ValueError(
            "A cut must be a layer that the model calls once, and that gives one tensor. Received: "
            f"{several[0]!r}, which gives {len(given[several[0]])}. Cut at another layer."
        )
    values = [given[name][0] for name in cuts]
    places = [_place(flat, value) for value in values]
    if places != sorted(set(places)):
        ordered = [name for _, name in sorted(dict(zip(places, cuts, strict=True)).items())]
        raise ValueError(
            "`cuts` must be in the model's order, each name once. Received: "
            f"{list(cuts)}. In order: {ordered}."
        )
    operations = [call.operation for call in flat.calls]
    forms = [data_format_of(operations[: place + 1]) for place in places]
    stretch = Flat(flat.inputs, values, flat.calls[: places[-1] + 1])

    declared = SeveralInputs(flat.inputs)

    def walk(x: Any) -> Iterator[DepthStep]:
        (before,) = declared.take([x])
        found = stretch.run([before], training=False)
        for value, form in zip(values, forms, strict=True):
            yield DepthStep(before, found[value], None, None, form)
            before = found[value]

    numbered = range(1, len(cuts) + 1)
    names, formats = dict(zip(numbered, cuts, strict=True)), dict(zip(numbered, forms, strict=True))
    return View(model, walk, names, formats, lambda x: declared.take([x]))


def _given_by_name(flat: Flat) -> dict[str, list[Value]]:
    """Give what every layer gives, all its calls together, nested models among the layers."""
    given: dict[str, list[Value]] = {}
    for call in flat.calls:
        given.setdefault(call.name, []).extend(call.outputs)
    for nest in dict.fromkeys(name for call in flat.calls for name in call.path[:-1]):
        if nest not in given:
            inside = [nest in call.path[:-1] for call in flat.calls]
            used = {id(value) for value in flat.outputs}
            for call, is_inside in zip(flat.calls, inside, strict=True):
                used |= set() if is_inside else {id(value) for value in call.inputs}
            made = [call.outputs for call, here in zip(flat.calls, inside, strict=True) if here]
            given[nest] = [value for row in made for value in row if id(value) in used]
    return given


def _place(flat: Flat, value: Value) -> int:
    return next(place for place, call in enumerate(flat.calls) if value in call.outputs)
