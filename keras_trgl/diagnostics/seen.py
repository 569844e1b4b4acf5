"""The features, predictions and moves of every depth on a sample, from a model of either kind."""

import dataclasses
import functools
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_trgl.checks import check_choice, check_integer, check_list
from keras_trgl.diagnostics.sampled import Sample, draw
from keras_trgl.greedy_model import GreedyModel
from keras_trgl.layers.inner import data_format_of
from keras_trgl.network.seen_by_depth import (
    DepthStep,
    SeenByDepth,
    Walk,
    pooled,
    walk_of_stages,
)
from keras_trgl.progress import Progress
from keras_trgl.scores import check_predictions, class_probabilities

DEPTH_OF_STAGES = "Depths count from 1 to the number of stages."


@dataclasses.dataclass(frozen=True)
class View:
    """A model as its depths: the way through them, and their names.

    Attributes:
        model: the model.
        walk: the way through all depths up to the deepest of them.
        names: dict of number, from 1, to how a depth is called: the same number, or the cut.
        formats: dict of number to where features that are images have their channels.
    """

    model: Any
    walk: Walk
    names: dict[int, Any]
    formats: dict[int, str | None]

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
    model.drain()
    last = max(depths)
    walk = walk_of_stages(model.stages[:last], model.heads[:last], reduction)
    formats = {
        depth: data_format_of([b for stage in model.stages[:depth] for b in stage.blocks])
        for depth in depths
    }
    return View(model, walk, {depth: depth for depth in depths}, formats)


def _view_of_cuts(model: Any, cuts: Any) -> View:
    named = [layer.name for layer in model.layers]
    hint = "Name layers of the model, in their order: `cuts=['block_1', 'block_2']`."
    if cuts is None:
        raise ValueError(f"A plain model has no depths of its own. Received: cuts=None. {hint}")
    check_list("cuts", cuts, "names of layers", hint)
    unknown = [name for name in cuts if name not in named]
    if unknown or not cuts:
        raise ValueError(
            f"`cuts` must be names of the model's layers. Received: {list(cuts)}, of which "
            f"{unknown} are none; the model has {', '.join(named[:8])}"
            f"{', …' if len(named) > 8 else ''}."
        )
    places = [named.index(name) for name in cuts]
    if places != sorted(set(places)):
        ordered = [named[place] for place in sorted(set(places))]
        raise ValueError(
            "`cuts` must be in the model's order, each name once. Received: "
            f"{list(cuts)}. In order: {ordered}."
        )
    try:
        outputs = [model.get_layer(name).output for name in cuts]
        inner = keras.Model(model.inputs, outputs)
    except (AttributeError, ValueError, TypeError) as error:
        raise ValueError(
            "A plain model must be functional or sequential, built, and call each cut layer once. "
            f"Received: {type(model).__name__} {model.name!r}: {str(error).splitlines()[0]}"
        ) from error
    forms = [getattr(model.get_layer(name), "data_format", None) for name in cuts]

    def walk(x: Any) -> Iterator[DepthStep]:
        found = inner(x, training=False)
        before = x
        for features, form in zip(found if len(cuts) > 1 else [found], forms, strict=True):
            # Keras gives a list of one for a list of one.
            features = features[0] if isinstance(features, (list, tuple)) else features
            yield DepthStep(before, features, None, None, form)
            before = features

    numbered = range(1, len(cuts) + 1)
    names, formats = dict(zip(numbered, cuts, strict=True)), dict(zip(numbered, forms, strict=True))
    return View(model, walk, names, formats)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a diagnostic works on.

    Attributes:
        view: the model's depths.
        sample: the rows.
        arrays: dict of `name_k` to an array with a row per example.
        batch_size: int, examples.
        verbose: as in `predict`.
    """

    view: View
    sample: Sample
    arrays: dict[str, Any]
    batch_size: int
    verbose: Any

    @property
    def depths(self) -> list[int]:
        """Numbers of the depths, ascending."""
        return list(self.view.names)

    @property
    def index(self) -> tuple[Any, ...]:
        """What tables call the depths."""
        return tuple(self.view.names.values())

    @functools.cached_property
    def _seer(self) -> SeenByDepth:
        return SeenByDepth(self.view.walk, ("features",), self.depths)

    def batch_of_features(self, rows: slice) -> dict[int, Any]:
        """Give a batch's features of every depth as they are.

        Args:
            rows: of the sample.
        """
        x = self.sample.x[rows]
        found = self.view.batch(self._seer, x)
        check_finite(found, self.view.names)
        return {depth: found[f"features_{depth}"] for depth in self.depths}

    def feature_bytes(self) -> dict[int, int]:
        """Give the bytes of all rows' features by depth, as `features` gives them."""
        first = self.batch_of_features(slice(0, self.batch_size))
        return {
            depth: self._kept(depth, values)[0].nbytes * len(self.sample.x)
            for depth, values in first.items()
        }

    def features(self, depths: Sequence[int]) -> dict[int, Any]:
        """Give all rows' features of some depths: images as they are, else vectors.

        Args:
            depths: numbers of the depths.
        """
        parts: dict[int, list[Any]] = {depth: [] for depth in depths}
        for start in range(0, len(self.sample.x), self.batch_size):
            found = self.batch_of_features(slice(start, start + self.batch_size))
            for depth in depths:
                parts[depth].append(self._kept(depth, found[depth]))
        return {depth: np.concatenate(values) for depth, values in parts.items()}

    def _kept(self, depth: int, values: Any) -> Any:
        if values.ndim in (2, 4):
            return values
        return np.asarray(pooled(values, self.view.formats[depth]))

    def get(self, name: str, depth: int) -> Any:
        """Give an array, or `None` where the depth has no such thing."""
        return self.arrays.get(f"{name}_{depth}")

    def chances(self, depth: int, predictions: str) -> Any:
        """Give the head's probabilities, `(examples, classes)`, or `None` where there is no head.

        Args:
            depth: int, 1…K.
            predictions: `"logits"` or `"probabilities"`: what the heads give.

        Raises:
            ValueError: they give the other.
        """
        given = self.get("prediction", depth)
        if given is None:
            return None
        check_choice("predictions", predictions, ("logits", "probabilities"))
        check_predictions(predictions, given)
        return class_probabilities(given, predictions)

    def about(self, **more: Any) -> dict[str, Any]:
        """Give what a table says of where it comes from."""
        return {"model": self.view.model.name, "rows": self.sample.text, **more}


def see(
    model: Any,
    data: Any,
    wants: Sequence[str],
    cuts: Any = None,
    sample: int = 2000,
    seed: int = 0,
    batch_size: int = 256,
    verbose: Any = 0,
    needs_labels: bool = False,
    reduction: str | None = None,
) -> Seen:
    """Look at a sample through every depth of a model, in one pass.

    Args:
        model: see `view_of`.
        data: array `(examples, …)`, or a tuple `(x, y)` of arrays.
        wants: names of what `SeenByDepth` gives.
        cuts: see `view_of`. Defaults to `None`.
        sample: int ≥ 1. Rows at most. Defaults to `2000`.
        seed: int ≥ 0. Seed of the rows. Defaults to `0`.
        batch_size: int ≥ 1, examples. Defaults to `256`.
        verbose: as in `predict`. Defaults to `0`.
        needs_labels: bool. Defaults to `False`.
        reduction: of the energy. Defaults to `None`.

    Raises:
        ValueError: features or predictions are not finite, or labels are none of the classes.
    """
    view = view_of(model, cuts, reduction)
    drawn = draw(data, sample, seed, needs_labels)
    arrays = {}
    if wants:
        arrays = view.see(drawn.x, wants, view.names, batch_size, verbose)
        check_finite(arrays, view.names)
    found = Seen(view, drawn, arrays, batch_size, verbose)
    for depth in found.depths:
        predicted = found.get("prediction", depth)
        if predicted is not None and drawn.labels is not None:
            check_labels(drawn.labels, predicted.shape[1])
    return found


def check_labels(labels: Any, units: int) -> None:
    """Raise unless labels are classes of a head.

    Raises:
        ValueError: they are none.
    """
    classes = max(units, 2)
    if labels.max() >= classes:
        raise ValueError(
            f"Labels must be classes that the heads know, 0 to {classes - 1}. Received: label "
            f"{int(labels.max())}. Count classes from 0, as in training."
        )


def check_heads(model: Any) -> None:
    """Raise unless a model has heads.

    Raises:
        TypeError: it is no `GreedyModel`.
    """
    if not isinstance(model, GreedyModel):
        raise TypeError(
            "Predictions of every depth are those of a `GreedyModel`. Received: "
            f"{model!r}. Cut a model by `GreedyModel.from_model(model, cuts, head)`."
        )


def check_finite(arrays: dict[str, Any], names: dict[int, Any]) -> None:
    """Raise unless all numbers are finite.

    Args:
        arrays: `SeenByDepth`'s dict.
        names: what depths are called.

    Raises:
        ValueError: some are not.
    """
    # Of what one fault makes the first is told: what goes in, what comes out, what is made of it.
    for key, values in sorted(arrays.items(), key=lambda one: _order(one[0])):
        name, _, depth = key.rpartition("_")
        # A displacement is NaN on purpose where there is nothing to divide by.
        if name == "displacement":
            continue
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(1)
        if bad.any():
            side = "before depth" if name == "origin" else "at depth"
            what = {"prediction": "Predictions", "energy": "Energies"}.get(name, "Features")
            raise ValueError(
                f"{what} must be finite. Received: NaN or infinite numbers {side} "
                f"{names[int(depth)]}, in {int(bad.sum())} of {len(bad)} rows. Look at the "
                "data, and at the rate of training."
            )


def _order(key: str) -> tuple[int, int]:
    name, _, depth = key.rpartition("_")
    order = ("origin", "vectors", "features", "prediction", "energy", "displacement")
    return int(depth), order.index(name)
