"""`GreedyModel`: stages and heads that train by local losses through Keras's own `fit`."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_trgl import from_model as functional
from keras_trgl.checks import check_stage_sizes
from keras_trgl.compiled_steps import CompiledSteps, readable_errors
from keras_trgl.layers.stage import Stage
from keras_trgl.methods.end_to_end import EndToEnd
from keras_trgl.methods.method import Method
from keras_trgl.methods.trgl import TRGL, VanGL
from keras_trgl.optimizers import StageOptimizers
from keras_trgl.parts import chosen, head_recipes, own_heads, own_stages, pick_seed
from keras_trgl.regimes.parallel import Parallel
from keras_trgl.regimes.regime import Regime
from keras_trgl.registration import public
from keras_trgl.seeds import DATA, derive_seed
from keras_trgl.stage_step import check_label_range
from keras_trgl.staged_network import StagedNetwork
from keras_trgl.summary import stage_table
from keras_trgl.training_data import check_labels, check_ready, ordered, split_validation

METHODS = {"trgl": TRGL, "vangl": VanGL, "end_to_end": EndToEnd}
REGIMES = {"parallel": Parallel}


@public
class GreedyModel(StagedNetwork):
    """A network cut into K stages, each trained by its own head and its own objective.

    Stage k minimises *task loss of F_k∘G_k + what its layers add*, the energy `E_k/(2τ_k)` with
    `TRGL`. No gradient crosses a cut. On one device stage k+1 begins when stage k has freed its
    activations, so the memory is that of the largest stage.

    Stages and heads that are not built yet are made anew from their configurations, with seeds
    from (seed, position): initial weights depend neither on K nor on the heads chosen. Built
    ones are used as they are.

    Args:
        stages: list of K stages: `Stage`, a layer, or a list of layers each.
        heads: list of K layers, from features to prediction.
        method: `Method`, or `"trgl"`, `"vangl"`, `"end_to_end"`. Defaults to `"trgl"`.
        regime: `Regime`, or `"parallel"`. Defaults to `"parallel"`.
        seed: int ≥ 0 or `None`. Seed of initial weights and of the order of the data; `None`
            draws one from Python's `random`, which `keras.utils.set_random_seed` sets. Defaults
            to `None`.
        **kwargs: `name`, `dtype`, as for any Keras model.

    `fit`, `evaluate` log the last depth's `loss` and metrics, and for every depth k = 1…K
    `stage_k_loss` (the task loss), the metrics, and in training `stage_k_objective` and
    `stage_k_energy`.

    Raises:
        ValueError: numbers of stages and heads differ; a head does not fit its stage.
        TypeError: something that is no layer.

    Example:
        >>> import numpy as np, keras_trgl as trgl
        >>> blocks = trgl.architectures.resnet(depth=8, input_shape=(8, 8, 1))
        >>> model = trgl.GreedyModel.from_blocks(
        ...     blocks, stage_sizes=[2, 1], head=trgl.heads.LinearHead(units=3), seed=0)
        >>> model.predict_exits(np.zeros((4, 8, 8, 1)), verbose=0)[0].shape
        (4, 3)

    Reference:
        Karkar et al., "Module-wise Training of Neural Networks via the Minimizing Movement
        Scheme", NeurIPS 2023.
    """

    def __init__(
        self,
        stages: Sequence[Any],
        heads: Sequence[Any],
        method: Any = "trgl",
        regime: Any = "parallel",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.method = chosen("method", method, Method, METHODS)
        self.regime = chosen("regime", regime, Regime, REGIMES)
        self.seed = pick_seed(seed)
        parts = own_stages(stages, heads, self.method, self.seed)
        self.stages: list[Stage] = parts
        self.heads: list[Any] = own_heads(heads, parts, self.seed)
        self._steps = CompiledSteps()
        self._evaluating = False
        expected = getattr(parts[0].blocks[0], "expected_input_shape", None)
        if expected is not None:
            self.build((None, *expected))

    @classmethod
    def from_blocks(
        cls, blocks: Sequence[Any], stage_sizes: Sequence[int], head: Any, **kwargs: Any
    ) -> "GreedyModel":
        """Make a model from a flat list of blocks.

        Args:
            blocks: list of layers, as an architecture gives them.
            stage_sizes: list of K ints that sum to `len(blocks)`.
            head: an unbuilt layer, copied for every stage, or a list of K layers.
            **kwargs: `method`, `regime`, `seed`, `name`, as in the constructor.

        Raises:
            ValueError: `stage_sizes` do not sum to the number of blocks.
        """
        check_stage_sizes(stage_sizes, len(blocks))
        ends = [sum(stage_sizes[: k + 1]) for k in range(len(stage_sizes))]
        stages = [
            Stage(list(blocks[end - size : end]))
            for end, size in zip(ends, stage_sizes, strict=True)
        ]
        return cls(stages, head_recipes(head, len(stages)), **kwargs)

    @classmethod
    def from_model(
        cls, model: keras.Model, num_stages: int, head: Any, **kwargs: Any
    ) -> "GreedyModel":
        """Cut a functional model into stages; its weights are kept, its `Add`s count.

        Args:
            model: functional `keras.Model`, one input and one output, without its own
                classifier (`include_top=False`), as the last stage gets a head too.
            num_stages: int. K.
            head: an unbuilt layer, copied for every stage, or a list of K layers.
            **kwargs: `residuals` (dict of a sum's name to the name of the layer whose output is
                the residual, or to `None` to leave the sum out of the energy, where the model
                does not tell), and the constructor's.

        Raises:
            ValueError: the model is not functional, has no K − 1 places where a single tensor
                passes, or a merge whose residual is ambiguous.
        """
        residuals = kwargs.pop("residuals", None)
        stages = functional.split_functional(model, num_stages, residuals=residuals)
        built = cls(stages, head_recipes(head, len(stages)), **kwargs)
        built.build((None, *model.input_shape[1:]))
        return built

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
            optimizer: Keras optimizer, copied for every stage, or a list of K.
            loss: Keras loss; every head's.
            loss_weights: as in Keras.
            metrics: list of Keras metrics; every head gets copies.
            weighted_metrics: as `metrics`, weighed by the sample weights.
            run_eagerly: bool. Defaults to `False`.
            steps_per_execution: int. Batches per call. Defaults to `1`.
            jit_compile: bool or `"auto"`, which is off here: XLA orders the stages as it likes
                and memory is not saved. Defaults to `"auto"`.
            auto_scale_loss: bool. Whether `mixed_float16` gives every stage a loss scale.
                Defaults to `True`.

        Raises:
            ValueError: a list of optimizers of another length, or one that was used elsewhere.
        """
        if jit_compile is True:
            warnings.warn(
                "With `jit_compile=True` XLA orders the stages itself: training is right, but "
                "memory is not saved. Leave `jit_compile` out to save it.",
                stacklevel=2,
            )
        with self.distribute_strategy.scope():
            optimizers = StageOptimizers.from_template(optimizer, self.num_stages)
            if auto_scale_loss and self.dtype_policy.name == "mixed_float16":
                optimizers.scale_losses()
            settings = {
                "loss": loss,
                "loss_weights": loss_weights,
                "metrics": metrics,
                "weighted_metrics": weighted_metrics,
            }
            self._steps = CompiledSteps(
                self.stages, self.heads, optimizers.optimizers, self.method, **settings
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

    def get_metrics_result(self) -> dict[str, Any]:
        """Give the last depth's loss and metrics, then every stage's with `stage_k_` before."""
        if self._evaluating:
            return self._steps.results(False, range(self.num_stages))
        return self._steps.results(True, self.regime.plan(self.num_stages))

    def train_step(self, data: Any) -> dict[str, Any]:
        """Let the stages that the regime plans step on one batch; called by `fit`."""
        x, y, sample_weight = self._unpack(data)
        features, plan = x, self.regime.plan(self.num_stages)
        for k in range(max(plan) + 1):
            step = self._steps.steps[k]
            if k in plan:
                features = step.train(features, y, sample_weight)
            else:
                features = step.pass_on(features)
        return self.get_metrics_result()

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

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Any = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: Any = 1,
    ) -> Any:
        """Train, with the arguments of `keras.Model.fit`.

        Arrays, `BatchStream` and `PyDataset` come in an order that is a function of
        (seed, epoch, step): another one in every epoch, the same when replayed. A `tf.data`
        pipeline or generator keeps its own order.

        Returns:
            Keras's `History`, with every stage's entries.

        Raises:
            ValueError: labels out of range, or a stage's loss that is not finite; the message
                names the stage, whose weights are as before that step.
        """
        check_ready(self)
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = split_validation(
                (x, y, sample_weight), validation_split
            )
        self._check_labels(y, "y")
        if isinstance(validation_data, (list, tuple)) and len(validation_data) > 1:
            self._check_labels(validation_data[1], "validation labels")
        data = ordered(
            x,
            y,
            sample_weight,
            batch_size=batch_size,
            shuffle=shuffle,
            steps_per_epoch=steps_per_epoch,
            initial_epoch=initial_epoch,
            seed=derive_seed(self.seed, DATA),
        )
        listed = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
        stops = any(isinstance(one, keras.callbacks.TerminateOnNaN) for one in listed)
        if self._steps.set_raise_on_nan(not stops and not self.jit_compile):
            self.train_function = None
        if self.built and data.element_spec is not None and not tf.distribute.has_strategy():
            self._steps.make_metrics(data.element_spec, self._prediction_shapes())
        with readable_errors():
            return super().fit(
                data.x,
                data.y,
                epochs=epochs,
                verbose=verbose,
                callbacks=self._with_progbar(callbacks, verbose),
                validation_data=validation_data,
                shuffle=data.shuffle,
                class_weight=class_weight,
                sample_weight=data.sample_weight,
                initial_epoch=initial_epoch,
                steps_per_epoch=data.steps_per_epoch,
                validation_steps=validation_steps,
                validation_batch_size=validation_batch_size or batch_size,
                validation_freq=validation_freq,
            )

    def _check_labels(self, y: Any, where: str) -> None:
        if self.built and self._steps.has_class_indices:
            check_labels(y, self._units, where)

    def _with_progbar(self, callbacks: Any, verbose: Any) -> Any:
        from keras_trgl.callbacks.depth_progbar import DepthProgbar

        if not verbose or isinstance(callbacks, keras.callbacks.CallbackList):
            return callbacks
        listed = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else callbacks
        listed = list(listed or [])
        if any(isinstance(one, keras.callbacks.ProgbarLogger) for one in listed):
            return listed
        return [*listed, DepthProgbar()]

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
        with self._evaluation(), readable_errors():
            logs = super().evaluate(*args, return_dict=True, **kwargs)
        return logs if return_dict else self._last_depth(logs)

    def train_on_batch(self, *args: Any, return_dict: bool = False, **kwargs: Any) -> Any:
        """Train on one batch; returns what `evaluate` returns."""
        check_ready(self)
        with readable_errors():
            logs = super().train_on_batch(*args, return_dict=True, **kwargs)
        return logs if return_dict else self._last_depth(logs)

    def test_on_batch(self, *args: Any, return_dict: bool = False, **kwargs: Any) -> Any:
        """Evaluate on one batch; returns what `evaluate` returns."""
        check_ready(self)
        with self._evaluation(), readable_errors():
            logs = super().test_on_batch(*args, return_dict=True, **kwargs)
        return logs if return_dict else self._last_depth(logs)

    def _last_depth(self, logs: dict[str, Any]) -> Any:
        names = self._steps.steps[-1].exit.get_metrics_result()
        values = [logs[name] for name in names]
        return values[0] if len(values) == 1 else values

    def summary(self, print_fn: Any = print, **kwargs: Any) -> None:
        """Print stages and heads, their parameters, and what each is trained by.

        Args:
            print_fn: function of a str. Defaults to `print`.
            **kwargs: other arguments of `keras.Model.summary`, not used.
        """
        del kwargs
        stages, heads, shape = self._first(self.num_stages)
        optimizers = self.optimizer.optimizers if self.compiled else []
        print_fn(stage_table(self.name, shape, stages, heads, self.method, optimizers))

    def get_config(self) -> dict[str, Any]:
        """Give the configuration: stages, heads, method, regime and seed."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "stages": [serialize(stage) for stage in self.stages],
            "heads": [serialize(head) for head in self.heads],
            "method": serialize(self.method),
            "regime": serialize(self.regime),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "GreedyModel":
        """Make the model from `get_config`'s result."""
        config = dict(config)
        for key in ("stages", "heads", "method", "regime"):
            config[key] = keras.saving.deserialize_keras_object(
                config[key], custom_objects=custom_objects
            )
        return cls(**config)
