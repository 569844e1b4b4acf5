"""What a subclass of the model overrides, and how the stages' steps call it.

Keras calls a model's `compute_loss` and `compute_metrics` with its one prediction. Here the first
is asked by every stage, as it defines what each minimises; the second once a batch, for the deepest
stage that trains, so that what it counts is counted once.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from keras_trgl.types import Tensor


class SubclassHooks:
    """The methods of a model that its class may override.

    Args:
        model: the model, or `None` for none.
        base: the class whose own methods are no override.

    Attributes:
        overrides_loss: bool. Whether `compute_loss` is the subclass's.
        overrides_metrics: bool. Whether `compute_metrics` is.
        exit: the `Exit` that speaks while a hook runs, or `None`.
    """

    def __init__(self, model: Any = None, base: Any = None) -> None:
        self._model = model
        self.exit: Any = None
        self.overrides_loss = _overrides(model, base, "compute_loss")
        self.overrides_metrics = _overrides(model, base, "compute_metrics")

    @property
    def needs_data(self) -> bool:
        """Whether an override is to see the network's input, as in Keras."""
        return self.overrides_loss or self.overrides_metrics

    def loss(
        self,
        exit_model: Any,
        x: Any,
        y: Any,
        prediction: Tensor,
        sample_weight: Any,
        training: bool,
    ) -> Tensor:
        """Give the task loss of one exit, by the subclass where it says how."""
        ask = self._model.compute_loss if self.overrides_loss else exit_model.compute_loss
        with self._speaking(exit_model):
            return ask(x=x, y=y, y_pred=prediction, sample_weight=sample_weight, training=training)

    def metrics(
        self, exit_model: Any, x: Any, y: Any, prediction: Tensor, sample_weight: Any
    ) -> dict[str, Any]:
        """Update the metrics of one exit by the subclass, and give what it wants logged."""
        with self._speaking(exit_model):
            return dict(self._model.compute_metrics(x, y, prediction, sample_weight))

    @contextlib.contextmanager
    def _speaking(self, exit_model: Any) -> Iterator[None]:
        before, self.exit = self.exit, exit_model
        try:
            yield
        finally:
            self.exit = before


def _overrides(model: Any, base: Any, name: str) -> bool:
    return model is not None and getattr(type(model), name) is not getattr(base, name)


def check_overrides(kind: type, base: Any) -> None:
    """Raise if a subclass overrides what training would pass over.

    Raises:
        TypeError: it overrides `call`.
    """
    if getattr(kind, "call", None) is not base.call:
        raise TypeError(
            "`call` cannot be overridden: training calls the stages one at a time, and would not "
            f"see it. Received: {kind.__name__} with a `call` of its own. Put what it does into "
            "the first stage's blocks, or override `train_step` and `test_step` of a plain model."
        )
