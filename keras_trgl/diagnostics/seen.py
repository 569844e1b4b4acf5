"""What a diagnostic works on: features, predictions and moves of every depth, on a sample."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_trgl.checks import check_choice
from keras_trgl.diagnostics.sampled import Sample, draw
from keras_trgl.diagnostics.views import View, view_of
from keras_trgl.greedy_model import GreedyModel
from keras_trgl.network.head_end import check_end, kind_of
from keras_trgl.network.seen_by_depth import SeenByDepth, pooled
from keras_trgl.scores import (
    check_classes,
    check_predictions,
    class_probabilities,
    log_odds,
    right_rows,
)


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
        given = self._predicted(depth, predictions)
        return None if given is None else class_probabilities(given, predictions)

    def sureness(self, depth: int, predictions: str) -> Any:
        """Give `log_odds` of the head's predictions, `(examples,)`, or `None` without a head.

        Args:
            depth: int, 1…K.
            predictions: `"logits"` or `"probabilities"`: what the heads give.

        Raises:
            ValueError: they give the other.
        """
        given = self._predicted(depth, predictions)
        return None if given is None else log_odds(given, predictions)

    def _predicted(self, depth: int, predictions: str) -> Any:
        """Give the head's predictions, of the kind that is said, or `None` without a head."""
        given = self.get("prediction", depth)
        if given is not None:
            check_choice("predictions", predictions, ("logits", "probabilities"))
            check_end([self.view.model.heads[depth - 1]], predictions)
            check_predictions(predictions, given)
        return given

    def right(self, depth: int) -> Any:
        """Give whether the head is right on each row, or `None` where there is no head.

        Args:
            depth: int, 1…K.
        """
        given = self.get("prediction", depth)
        if given is None:
            return None
        model = self.view.model
        loss = model.loss if model.compiled else None
        return right_rows(given, self.sample.labels, kind_of(model.heads[depth - 1], loss, given))

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
    # Here, as Keras wraps what is raised within a call in lines of its own.
    view.check(drawn.x[:1])
    arrays = {}
    if wants:
        arrays = view.see(drawn.x, wants, view.names, batch_size, verbose)
        check_finite(arrays, view.names)
    found = Seen(view, drawn, arrays, batch_size, verbose)
    for depth in found.depths:
        predicted = found.get("prediction", depth)
        if predicted is not None:
            check_classes(predicted, drawn.labels)
    return found


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
