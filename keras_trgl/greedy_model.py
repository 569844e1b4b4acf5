"""`GreedyModel`: stages and heads that train by local losses through Keras's own `fit`."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_trgl.checks import NO_BLOCKS, check_list, check_stage_sizes
from keras_trgl.devices import on_devices
from keras_trgl.feeding.training_data import check_ready
from keras_trgl.keeping.whole_files import WholeFiles
from keras_trgl.layers.stage import Stage
from keras_trgl.methods.by_name import get_method
from keras_trgl.methods.method import LocalMethod
from keras_trgl.network.brought_model import BroughtModel
from keras_trgl.network.door import check_rows, plain
from keras_trgl.network.ownership import (
    bring_home,
    claim,
    head_recipes,
    pick_seed,
)
from keras_trgl.network.placement import unplaced_copy
from keras_trgl.network.staged_network import StagedNetwork, named_layers
from keras_trgl.network.summary import counted_bytes, in_short, stage_table
from keras_trgl.recording import made_from
from keras_trgl.regimes.by_name import get_regime
from keras_trgl.regimes.regime import Regime
from keras_trgl.registration import public
from keras_trgl.training.compiled_steps import readable_errors
from keras_trgl.training.delayed_step import check_jit
from keras_trgl.training.fit_setup import FitArguments, FitSetup
from keras_trgl.training.keras_loop import KerasLoop
from keras_trgl.training.subclass_hooks import check_overrides
from keras_trgl.training.trainer import Trainer
from keras_trgl.training.training_run import TrainingRun
from keras_trgl.types import (
    CallbacksLike,
    LayerLike,
    OptimizerLike,
    Shape,
)


@public
class GreedyModel(BroughtModel, KerasLoop, WholeFiles):
    """A network cut into K stages, each trained by its own head and its own objective.

    Stage k minimises *task loss of F_k∘G_k + what its layers add*, the energy `E_k/(2τ_k)` with
    `TRGL`. No gradient crosses a cut. On one device stage k+1 begins when stage k has freed its
    activations, so the memory is that of the largest stage.

    A layer that serves one place is used as it is; one that stands in several, or a single `head`
    of K, is a recipe, copied for each. What is not built yet is built with seeds from (seed,
    position): initial weights depend neither on K nor on the heads chosen.

    Args:
        stages: list of K stages: `Stage`, a layer, or a list of layers each.
        heads: list of K layers, from features to prediction.
        method: `Method`, or the name of one that takes no arguments: `"trgl"`, `"vangl"`,
            `"end_to_end"`, `"ddg"`, …. Defaults to `"trgl"`.
        regime: `Regime`, or `"parallel"`, `"sequential"`, `"multi_lap"`, `"buffered"`. Defaults
            to `"parallel"`.
        seed: int ≥ 0 or `None`. Seed of initial weights and of the order of the data; `None`
            draws one from Python's `random`, which `keras.utils.set_random_seed` sets. Defaults
            to `None`.
        **kwargs: `name`, `dtype`, as for any Keras model.

    `fit`, `evaluate` log the last depth's `loss` and metrics, and for every depth k = 1…K
    `stage_k_loss` (the task loss), the metrics, and in training `stage_k_objective` and
    `stage_k_energy`.

    Raises:
        ValueError: numbers of stages and heads differ; a head does not fit its stage; two layers
            have one name; a layer is part of another living model, or cannot be copied.
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

    built: bool

    def __init__(
        self,
        stages: Sequence[LayerLike],
        heads: Sequence[keras.layers.Layer],
        method: str | LocalMethod = "trgl",
        regime: str | Regime = "parallel",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_overrides(type(self), GreedyModel)
        self.method = get_method(method)
        self.regime = get_regime(regime)
        for setting in (self.method, self.regime):
            setting.settle()
        self.seed_is_given = seed is not None
        self._network = StagedNetwork(stages, heads, self.method, pick_seed(seed))
        claim(self, self._network.given_layers)
        self._network.placement.check_idle(self.regime.idle_device)
        self._trainer = Trainer(self, self._network, self.regime, GreedyModel)
        self._fits = FitSetup(self, self._trainer)
        # Keras tracks the layers of a list that is an attribute; those of a plain object it
        # does not see.
        self.stages: list[Stage] = self._network.stages
        if self._network.expected_input_shape is not None:
            self.build(self._network.expected_input_shape)

    @classmethod
    def from_blocks(
        cls,
        blocks: Sequence[keras.layers.Layer],
        stage_sizes: Sequence[int],
        head: LayerLike,
        **kwargs: Any,
    ) -> "GreedyModel":
        """Make a model from a flat list of blocks.

        Args:
            blocks: list of layers, as an architecture gives them.
            stage_sizes: list of K ints that sum to `len(blocks)`.
            head: an unbuilt layer, copied for every stage, or a list of K layers.
            **kwargs: `method`, `regime`, `seed`, `name`, as in the constructor.

        Returns:
            `GreedyModel`.

        Raises:
            ValueError: `stage_sizes` do not sum to the number of blocks.
        """
        check_list("blocks", blocks, "layers", NO_BLOCKS)
        check_stage_sizes(stage_sizes, len(blocks))
        left = iter(blocks)
        stages = [[next(left) for _ in range(size)] for size in stage_sizes]
        return cls(stages, head_recipes(head, len(stages)), **kwargs)

    @property
    def training_run(self) -> TrainingRun | None:
        """Where a call of `fit` stands; `None` outside one."""
        return self._trainer.run

    def build(self, input_shape: Shape) -> None:
        """Build stages and heads for data of this shape, batch axis included.

        Args:
            input_shape: tuple, `(batch, …)`; the batch axis may be `None`.

        Raises:
            ValueError: a head does not fit the features of its stage.
        """
        if self.built:
            return
        self._network.build(input_shape)
        self._trainer.settle()
        for name, layers in named_layers(self._network.parts).items():
            setattr(self, f"_{name}", layers)
        self.built = True

    def compile(
        self,
        optimizer: OptimizerLike = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
        micro_batches: int = 1,
        remat: bool | int = False,
    ) -> None:
        """Configure training, as `keras.Model.compile` does, for every stage.

        Args:
            optimizer: str or Keras optimizer, copied for every stage (used as it is with one
                stage), or a list of K. Defaults to `"rmsprop"`.
            loss: as in Keras; every head's, or a list of K, one per head. Defaults to `None`.
            loss_weights: as in Keras. Defaults to `None`.
            metrics: list of Keras metrics, of which every head gets copies, or a list of K such
                lists. Defaults to `None`.
            weighted_metrics: as in `metrics`, weighed by the sample weights. Defaults to `None`.
            run_eagerly: bool. Defaults to `False`.
            steps_per_execution: int ≥ 1, batches per call. Defaults to `1`.
            jit_compile: bool or `"auto"`, which is off: XLA orders the stages as it likes and
                saves no memory. Defaults to `"auto"`.
            auto_scale_loss: bool. Whether `mixed_float16` gives every stage a loss scale.
                Defaults to `True`.
            micro_batches: int ≥ 1. Parts that every stage trains a batch in, one after the
                other, to save memory; one update follows, and metrics see the batch. As with the
                whole batch but for what looks across examples: batch normalization takes each
                part's statistics, and moves its averages once a part; dropout draws for each
                part. A loss that a layer adds is taken as a mean over examples. Defaults to `1`.
            remat: bool or int ≥ 1, blocks of which a stage keeps what goes in alone; the rest is
                made anew in the backward pass, but for the stage's last blocks. Of a model that
                `from_model` cut, a unit is a block. Loss, gradients and states stay as they are.
                `True` is 1. Defaults to `False`.

        Raises:
            ValueError: optimizers that do not fit the stages; `jit_compile=True` with stages on
                several devices or with late gradients; `micro_batches` with replicas or with XLA;
                or the scope of another strategy than the model's.
        """
        given = locals()
        self.placement.check_scope(self.name)
        check_jit(self.method, self._network.num_stages, jit_compile)
        self.placement.check_jit(jit_compile)
        with self.distribute_strategy.scope():
            super().compile(**self._trainer.compile(given))
            if self.built and self.optimizer is not None:
                self.optimizer.build([])
        self.loss = loss

    def get_compile_config(self) -> dict[str, Any] | None:
        """Give what `compile` was given, for saving."""
        if not self.compiled:
            return None
        return {
            key: keras.saving.serialize_keras_object(value)
            for key, value in self._trainer.steps.compiled_with.items()
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as at saving; a built model's optimizers then have variables to be loaded."""
        self.compile(**made_from(config))

    @on_devices
    def drain(self) -> None:
        """Let later stages train on the batches that are on their way to them."""
        self._trainer.drain()

    def state_variables(self) -> dict[str, list[Any]]:
        """Give all variables that training changes.

        Returns:
            dict of group to list of variables, in a fixed order.
        """
        return self._trainer.state_variables()

    @on_devices
    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        verbose: str | int = "auto",
        callbacks: CallbacksLike = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Sequence[int] = 1,
    ) -> keras.callbacks.History:
        """Train, with the arguments of `keras.Model.fit`.

        Arrays, `BatchStream` and `PyDataset` come in an order that is a function of
        (seed, epoch, step): another one in every epoch, the same when replayed. A `tf.data`
        pipeline or generator keeps its own order. `epochs=None` is 1, or the sum of the stages'
        epochs where the regime has them.

        Returns:
            Keras's `History`, with every stage's entries.

        Raises:
            ValueError: labels out of range; `epochs` that are not the regime's; or a stage's
                loss that is not finite; the message names the stage, whose weights are as
                before that step.
        """
        # Callbacks stand above the model.
        from keras_trgl.callbacks.known_callbacks import known

        given = FitArguments.of(locals())
        with self._fits.running(given, known(callbacks)) as arguments:
            history = super().fit(**arguments)
        if history is not None:  # What wraps Keras's `fit` may give nothing.
            history.validation_freq = validation_freq
        return history

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
        from keras_trgl.callbacks.known_callbacks import known

        with self._trainer.evaluating_data(args, kwargs, known(None)) as named, readable_errors():
            logs = super().evaluate(*args, return_dict=True, **named)
        return logs if return_dict else self._trainer.last_depth(logs)

    @on_devices
    def train_on_batch(self, *args: Any, return_dict: bool = False, **kwargs: Any) -> Any:
        """Train on one batch; returns what `evaluate` returns."""
        check_ready(self, True, self._trainer.hooks.overrides_loss)
        self._network.check_form(args, kwargs)
        with readable_errors():
            logs = super().train_on_batch(*args, return_dict=True, **kwargs)
        return logs if return_dict else self._trainer.last_depth(logs)

    @on_devices
    def test_on_batch(self, *args: Any, return_dict: bool = False, **kwargs: Any) -> Any:
        """Evaluate on one batch; returns what `evaluate` returns."""
        check_ready(self, has_loss=self._trainer.hooks.overrides_loss)
        self._network.check_form(args, kwargs)
        with self._trainer.evaluating(), readable_errors():
            logs = super().test_on_batch(*args, return_dict=True, **kwargs)
        return logs if return_dict else self._trainer.last_depth(logs)

    @on_devices
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predict at the last depth, with the arguments of `keras.Model.predict`."""
        self.drain()
        self._network.check_form(args, kwargs)
        return super().predict(*args, **kwargs)

    @on_devices
    def predict_on_batch(self, x: Any) -> Any:
        """Predict one batch at the last depth."""
        self._network.check_form((x,), {})
        return super().predict_on_batch(x)

    @on_devices
    def predict_exits(self, x: Any, **kwargs: Any) -> list[Any]:
        """Predict at every depth.

        Args:
            x: array `(examples, …)`, or other data as in `predict`.
            **kwargs: `batch_size`, `verbose`, `steps`, `callbacks`, as in `predict`.

        Returns:
            List of K arrays, `(examples, units)` each, for depths 1…K.
        """
        self.drain()
        self._network.door.note(x)
        check_rows(x)
        self._network.check_form((x,), kwargs)
        predictions = self._network.all_exits(self.name).predict(plain(x), **kwargs)
        return list(predictions) if isinstance(predictions, (list, tuple)) else [predictions]

    def export(self, filepath: Any, **kwargs: Any) -> None:
        """Export the last depth as Keras does; `truncate(k).export(…)` exports another.

        Raises:
            ValueError: the model is not built; or its stages are on devices, and the call is
                inside a strategy's scope.
        """
        if self.placement.strategy is not None:
            unplaced_copy(self).export(filepath, **kwargs)
            return
        # Keras exports only what was called; training calls stages, not the model.
        self(self._network.door.zeros(self.input_shape))
        super().export(filepath, **kwargs)

    def summary(
        self,
        line_length: int | None = None,
        positions: Any = None,
        print_fn: Any = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Any = None,
        batch_size: int | None = None,
    ) -> None:
        """Print stages and heads, their parameters, and what each is trained by.

        Args:
            line_length: not used; `positions`, `show_trainable` (always shown), `layer_range`
                neither.
            positions: not used.
            print_fn: function of a str, or `None`, which is `print`. Defaults to `None`.
            expand_nested: bool. Whether blocks have rows of their own. Defaults to `False`.
            show_trainable: not used.
            layer_range: not used.
            batch_size: int ≥ 1, examples, to show the bytes that training a stage takes, or
                `None`. Defaults to `None`.
        """
        del line_length, positions, show_trainable, layer_range
        optimizers = getattr(self.optimizer, "optimizers", ()) if self.compiled else ()
        options = self._trainer.steps.compiled_with
        table = stage_table(
            self.name, self._network, optimizers, expand_nested, batch_size, options
        )
        (print_fn or print)(table)

    def count_bytes(self, batch_size: int) -> tuple[list[int], int, int]:
        """Predict the bytes that training takes, as compiled.

        Args:
            batch_size: int ≥ 1, examples.

        Returns:
            Tuple: list of K ints, what each stage takes at its worst moment; weights, slots and
            data; the peak of all.

        Raises:
            ValueError: the model is not built.
        """
        optimizers = getattr(self.optimizer, "optimizers", ()) if self.compiled else ()
        options = self._trainer.steps.compiled_with
        return counted_bytes(self._network, optimizers, batch_size, options)

    def __repr__(self) -> str:
        return in_short(self)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration: stages, or the model that was cut, given heads, and the rest."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            **self._made_of(),
            "method": serialize(self.method),
            "regime": serialize(self.regime),
            "seed": self.seed if self.seed_is_given else None,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "GreedyModel":
        """Make the model from `get_config`'s result."""
        config = dict(config)
        brought = config.pop("brought", None)
        for key in {"stages", "heads", "method", "regime"} & set(config):
            config[key] = made_from(config[key], custom_objects)
        if brought is not None:
            made: GreedyModel = cls._brought_again(brought, config, custom_objects)
            return made
        bring_home(config["stages"], config["heads"], config["method"])
        return cls(**config)
