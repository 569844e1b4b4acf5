"""A staged network that is compiled: every stage's loss, optimizer and metrics, and evaluation."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.feeding.training_data import check_labels, check_ready
from keras_trgl.network.placement import on_devices
from keras_trgl.network.staged_network import StagedNetwork
from keras_trgl.training.compiled_steps import CompiledSteps, readable_errors
from keras_trgl.training.optimizers import StageOptimizers
from keras_trgl.training.stage_step import check_label_range
from keras_trgl.types import Shape, StagePlacement


class CompiledNetwork(StagedNetwork):
    """What `GreedyModel` is before it trains: stages that can be compiled and evaluated.

    A member sets `stages`, `heads`, `method`, and gives `get_metrics_result`.
    """

    method: Any
    regime: Any
    training_run: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._steps = CompiledSteps()
        self._evaluating = False

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Configure training, as `keras.Model.compile` does, for every stage.

        Args:
            optimizer: Keras optimizer, copied for every stage where K > 1, or a list of K, used
                as they are.
            loss: Keras loss; every head's.
            loss_weights: as in Keras.
            metrics: list of Keras metrics, copied for every head where K > 1, or a list of K
                lists, each for one head.
            weighted_metrics: as `metrics`, weighed by the sample weights.
            run_eagerly: bool. Defaults to `False`.
            steps_per_execution: int. Batches per call. Defaults to `1`.
            jit_compile: bool or `"auto"`, which is off here: XLA orders the stages as it likes
                and memory is not saved. Defaults to `"auto"`.
            auto_scale_loss: bool. Whether `mixed_float16` gives every stage a loss scale.
                Defaults to `True`.

        Raises:
            ValueError: a list of optimizers of another length, or one that was used elsewhere;
                `jit_compile=True` with stages on several devices; or the scope of another
                strategy than the one that the model was made in.
        """
        self._check_scope()
        self.placement.check_jit(jit_compile)
        if jit_compile is True:
            warnings.warn(
                "With `jit_compile=True` XLA orders the stages itself: training is right, but "
                "memory is not saved. Leave `jit_compile` out to save it.",
                stacklevel=2,
            )
        with self.distribute_strategy.scope():
            on = None if self.placement.strategy is None else self.placement.on
            optimizers = StageOptimizers.from_template(optimizer, self.num_stages, on)
            if auto_scale_loss and self.dtype_policy.name == "mixed_float16":
                optimizers.scale_losses()
            settings = {
                "loss": loss,
                "loss_weights": loss_weights,
                "metrics": metrics,
                "weighted_metrics": weighted_metrics,
            }
            self._steps = CompiledSteps(
                self.stages,
                self.heads,
                optimizers.optimizers,
                self.method,
                self.placement,
                **settings,
            )
            optimizers.bind(self._steps.trainable_variables)
            loop = {
                "run_eagerly": run_eagerly,
                "steps_per_execution": steps_per_execution,
                "jit_compile": jit_compile is True,
            }
            # Losses and metrics live in the steps: Keras's own loop sees the optimizer alone.
            super().compile(optimizer=optimizers, auto_scale_loss=False, **loop)
            if self.built:
                optimizers.build([])
        self.loss = loss
        self._steps.compiled_with = {"optimizer": optimizers, **settings, **loop}

    def _check_scope(self) -> None:
        current: Any = tf.distribute.get_strategy()
        if isinstance(current, StagePlacement) and self.placement.strategy is not current:
            raise ValueError(
                "A model must be made inside the scope of the strategy that places its stages. "
                f"Received: {self.name}, made outside. Make it inside `with strategy.scope():`."
            )

    def _settle(self, shape: Shape) -> None:
        super()._settle(shape)
        self._steps.settle(self.placement)

    def get_compile_config(self) -> dict[str, Any] | None:
        """Give what `compile` was given, for saving."""
        if not self.compiled:
            return None
        return {
            key: keras.saving.serialize_keras_object(value)
            for key, value in self._steps.compiled_with.items()
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as at saving, and make the optimizers' variables so that they can be loaded."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build([])

    @property
    def metrics(self) -> list[Any]:
        """Every stage's trackers and metrics."""
        return self._steps.metrics

    def test_step(self, data: Any) -> dict[str, Any]:
        """Evaluate every depth on one batch; called by `evaluate`."""
        features, y, sample_weight = self._unpack(data)
        for step in self._steps.steps:
            features = step.evaluate(features, y, sample_weight)
        with self._evaluation():
            return self.get_metrics_result()

    def _unpack(self, data: Any) -> tuple[Any, Any, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if not self.built:
            with tf.init_scope():
                self.build((None, *x.shape[1:]))
                self.optimizer.build([])
        if self._steps.has_class_indices and y is not None and not self.jit_compile:
            y = check_label_range(y, self._units)
        return x, y, sample_weight

    @property
    def _units(self) -> int:
        return int(self.compute_output_shape(self._input_shape or ())[-1] or 0)

    @contextlib.contextmanager
    def _evaluation(self) -> Iterator[None]:
        before, self._evaluating = self._evaluating, True
        try:
            yield
        finally:
            self._evaluating = before

    def _check_labels(self, y: Any, where: str) -> None:
        if self.built and self._steps.has_class_indices:
            check_labels(y, self._units, where)

    @property
    def _has_replicas(self) -> bool:
        """Whether the model was made under a strategy of replicas, which may be one."""
        with self.distribute_strategy.scope():
            return bool(tf.distribute.has_strategy()) and self.placement.strategy is None

    def _check_validation(self, validation_data: Any) -> None:
        if isinstance(validation_data, (list, tuple)) and len(validation_data) > 1:
            self._check_labels(validation_data[1], "validation labels")
        stop = self.regime.stop
        if validation_data is None and stop is not None and stop.monitor.startswith("val_"):
            raise ValueError(
                f"`StopStage` watches {stop.monitor!r}, which takes validation data. Received: "
                "validation_data=None. Pass them to `fit`, or watch 'loss'."
            )

    def _with_progbar(self, callbacks: Any, verbose: Any) -> Any:
        """Give the callbacks with the model's own progress bar, where one is to be shown."""
        raise NotImplementedError

    @on_devices
    def evaluate(self, *args: Any, return_dict: bool = False, **kwargs: Any) -> Any:
        """Evaluate every depth, with the arguments of `keras.Model.evaluate`.

        Returns:
            With `return_dict=True` a dict with every depth's `stage_k_…` and, without a prefix,
            the last depth's results; else the last depth's alone, a list (or the loss, where
            there are no metrics).

        Raises:
            ValueError: labels out of range.
        """
        check_ready(self)
        if len(args) > 1 or "y" in kwargs:
            self._check_labels(args[1] if len(args) > 1 else kwargs["y"], "y")
        if "callbacks" not in kwargs and len(args) < 7:
            kwargs["callbacks"] = self._with_progbar(None, kwargs.get("verbose", "auto"))
        self.drain()
        with self._evaluation(), readable_errors():
            logs = super().evaluate(*args, return_dict=True, **kwargs)
        return logs if return_dict else self._last_depth(logs)

    @on_devices
    def train_on_batch(self, *args: Any, return_dict: bool = False, **kwargs: Any) -> Any:
        """Train on one batch; returns what `evaluate` returns."""
        check_ready(self)
        with readable_errors():
            logs = super().train_on_batch(*args, return_dict=True, **kwargs)
        return logs if return_dict else self._last_depth(logs)

    @on_devices
    def test_on_batch(self, *args: Any, return_dict: bool = False, **kwargs: Any) -> Any:
        """Evaluate on one batch; returns what `evaluate` returns."""
        check_ready(self)
        with self._evaluation(), readable_errors():
            logs = super().test_on_batch(*args, return_dict=True, **kwargs)
        return logs if return_dict else self._last_depth(logs)

    def _last_depth(self, logs: dict[str, Any]) -> Any:
        # Stages that never stepped have no metrics yet: the deepest that has some speaks.
        for step in reversed(self._steps.steps):
            with contextlib.suppress(ValueError):
                names = step.exit.get_metrics_result()
                break
        values = [logs[name] for name in names]
        return values[0] if len(values) == 1 else values
