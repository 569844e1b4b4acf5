"""What Keras's own training loop calls on a model; each hands over to the model's trainer."""

from typing import Any

import keras

from keras_trgl.training.trainer import Trainer
from keras_trgl.types import Logs, Tensor


class KerasLoop(keras.Model):
    """A Keras model whose steps, losses and metrics are those of a `Trainer`.

    A member sets `_trainer`.
    """

    _trainer: Trainer
    train_function: Any
    test_function: Any

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Every stage's trackers and metrics, then those that a subclass keeps."""
        # Keras's own list begins with the tracker of a loss that is not computed here.
        own = super().metrics[1:] if self.compiled else super().metrics
        return [*self._trainer.steps.metrics, *own]

    @property
    def metrics_names(self) -> list[str]:
        """Names of what `evaluate` gives in its list."""
        return self._trainer.names_of_last_depth()

    @property
    def _places_of_metrics(self) -> dict[int, str]:
        """Paths of the variables of metrics, which begin with the stage, by `id`."""
        return {
            id(variable): f"stage_{step.depth}/{variable.path}"
            for step in self._trainer.steps.steps
            for metric in step.metrics
            for variable in metric.variables
        }

    def get_metrics_result(self) -> Logs:
        """Give the last depth's loss and metrics, then every stage's with `stage_k_` before."""
        return self._trainer.drained_results()

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Give the task loss of one exit's prediction; energies are added by the stages' steps.

        A subclass may override it: every stage then minimises what it gives in place of the
        compiled loss, with the network's data as `x`.

        Returns:
            Scalar tensor.
        """
        return self._trainer.task_loss(
            x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training
        )

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Logs:
        """Update one exit's metrics, and give all results.

        A subclass may override it: it is called once a batch, with the prediction of the deepest
        stage that trains (of the last depth in evaluation) and the network's data as `x`.

        Returns:
            dict of name to scalar tensor.
        """
        self._trainer.update_metrics(x, y, y_pred, sample_weight)
        return self._trainer.results()

    def train_step(self, data: Any) -> Logs:
        """Let the stages that the regime plans step on one batch; called by `fit`."""
        return self._trainer.train_on(data)

    def test_step(self, data: Any) -> Logs:
        """Evaluate every depth on one batch; called by `evaluate`."""
        return self._trainer.evaluate_on(data)

    def make_test_function(self, force: bool = False) -> Any:
        """Make what `evaluate` calls for every execution.

        Args:
            force: bool. Whether to trace anew. Defaults to `False`.
        """
        if self.test_function is None or force:
            self.test_function = self._trainer.test_function(super().make_test_function)
        return self.test_function

    def make_train_function(self, force: bool = False) -> Any:
        """Make what `fit` calls for every execution: a traced function per plan of the regime.

        Args:
            force: bool. Whether to trace anew. Defaults to `False`.
        """
        if self.train_function is None or force:
            self.train_function = self._trainer.train_function(super().make_train_function)
        return self.train_function
