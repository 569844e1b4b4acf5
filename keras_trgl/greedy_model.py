"""`GreedyModel`: stages and heads that train by local losses through Keras's own `fit`."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.checks import check_stage_sizes
from keras_trgl.feeding.data_identity import num_batches
from keras_trgl.feeding.training_data import TrainingData, check_ready, ordered, split_validation
from keras_trgl.layers.stage import Stage
from keras_trgl.methods.end_to_end import EndToEnd
from keras_trgl.methods.method import Method
from keras_trgl.methods.trgl import TRGL, VanGL
from keras_trgl.network import from_model as functional
from keras_trgl.network.ownership import (
    bring_home,
    chosen,
    head_recipes,
    own_heads,
    own_stages,
    pick_seed,
)
from keras_trgl.network.placement import on_devices
from keras_trgl.network.summary import stage_table
from keras_trgl.regimes.buffered import Buffered
from keras_trgl.regimes.multi_lap import MultiLap
from keras_trgl.regimes.parallel import Parallel
from keras_trgl.regimes.regime import Regime
from keras_trgl.regimes.sequential import Sequential
from keras_trgl.regimes.timetable import Timetable
from keras_trgl.registration import public
from keras_trgl.seeds import DATA, PICKS, derive_seed
from keras_trgl.training.compiled_network import CompiledNetwork
from keras_trgl.training.compiled_steps import readable_errors
from keras_trgl.training.given_callbacks import has, listed, only_one, releases_backup
from keras_trgl.training.training_run import Feed, TrainingRun

METHODS = {"trgl": TRGL, "vangl": VanGL, "end_to_end": EndToEnd}
REGIMES = {
    "parallel": Parallel,
    "sequential": Sequential,
    "multi_lap": MultiLap,
    "buffered": Buffered,
}


@public
class GreedyModel(CompiledNetwork):
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
        self.seed, self.seed_is_given = pick_seed(seed), seed is not None
        parts, self.placement = own_stages(stages, heads, self.method, self.seed)
        self.stages: list[Stage] = parts
        self.heads: list[Any] = own_heads(heads, parts, self.seed, self.placement)
        self.placement.check_idle(self.regime.idle_device)
        self.training_run: TrainingRun | None = None
        self._timetable = Timetable(self.regime, len(parts))
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
        heads = head_recipes(head, len(stages))
        bring_home(stages, heads, chosen("method", kwargs.get("method", "trgl"), Method, METHODS))
        built = cls(stages, heads, **kwargs)
        built.build((None, *model.input_shape[1:]))
        return built

    def get_metrics_result(self) -> dict[str, Any]:
        """Give the last depth's loss and metrics, then every stage's with `stage_k_` before."""
        if self._evaluating:
            return self._steps.results(False, range(self.num_stages))
        # Keras asks at the end of an epoch, whose logs speak of all its batches.
        self.drain()
        return self._results()

    def _results(self) -> dict[str, Any]:
        return self._steps.results(True, self._place[0])

    @property
    def _place(self) -> tuple[Any, ...]:
        """The stages that step, and the one that batches enter at."""
        if self.training_run is None:
            return self.regime.plan(self.num_stages), 0
        return self.training_run.key

    @property
    def _stored(self) -> Any:
        """The step that takes batches from stores, if it is to be taken now.

        A single batch outside `fit` goes through all stages of the parallel regime at once.
        """
        in_fit = self.training_run is not None or isinstance(self.regime, Buffered)
        return self._steps.stored if in_fit else None

    def train_step(self, data: Any) -> dict[str, Any]:
        """Let the stages that the regime plans step on one batch; called by `fit`."""
        x, y, sample_weight = self._unpack(data)
        if self._stored is not None:
            self._stored((x, y, sample_weight))
            return self._results()
        features, (plan, level) = x, self._place
        for k in range(level, max(plan) + 1):
            step = self._steps.steps[k]
            if k in plan:
                features = step.train(features, y, sample_weight, hands_on=k < max(plan))
            else:
                features = step.pass_on(features, training=self.regime.frozen == "train")
        return self._results()

    def make_train_function(self, force: bool = False) -> Any:
        """Make what `fit` calls for every execution: a traced function per plan of the regime.

        Args:
            force: bool. Whether to trace anew. Defaults to `False`.
        """
        if self.train_function is not None and not force:
            return self.train_function
        functions: dict[Any, Any] = {}
        make = super().make_train_function
        if self._steps.stored is not None:
            self._steps.stored.retrace()

        def train_function(iterator: Any) -> Any:
            run = self.training_run
            if run is not None and run.leaves_out(iterator):
                return self._results()
            key = (self._place, self._stored)
            if key not in functions:
                # Keras makes the function in place of this one.
                outer = self.train_function
                make(force=True)
                functions[key], self.train_function = self.train_function, outer
            if run is None:
                return functions[key](iterator)
            logs = functions[key](run.feed.iterator(iterator))
            run.count()
            return logs

        self.train_function = train_function
        return train_function

    def _move_idle(self, plan: tuple[int, ...], device: str) -> None:
        """Move stages to where the regime has them, and trace anew if any moved."""
        if self._steps.place(plan, device, self.optimizer):
            self.train_function = self.test_function = self.predict_function = None
            self.make_train_function()

    @on_devices
    def drain(self) -> None:
        """Let later stages train on the batches that are on their way to them."""
        if self._steps.stored is not None:
            self._steps.stored.drain_all(self.run_eagerly)

    def state_variables(self) -> dict[str, list[Any]]:
        """Give all variables that training changes, by group, in a fixed order."""
        stored = self._steps.stored
        return {
            "model": list(self.variables),
            "metrics": [variable for one in self.metrics for variable in one.variables],
            "optimizer": list(self.optimizer.variables),
            "stores": [] if stored is None else stored.variables,
        }

    @releases_backup
    @on_devices
    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int | None = None,
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
        pipeline or generator keeps its own order. `epochs=None` is 1, or the sum of the stages'
        epochs where the regime has them.

        Returns:
            Keras's `History`, with every stage's entries.

        Raises:
            ValueError: labels out of range; `epochs` that are not the regime's; or a stage's
                loss that is not finite; the message names the stage, whose weights are as
                before that step.
        """
        from keras_trgl.callbacks.backup_and_restore import BackupAndRestore
        from keras_trgl.callbacks.multiplier_update import MultiplierUpdate

        check_ready(self)
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = split_validation(
                (x, y, sample_weight), validation_split
            )
        self._check_labels(y, "y")
        self._check_validation(validation_data)
        backup = only_one(callbacks, BackupAndRestore)
        place = (initial_epoch, 0)
        if backup is not None:
            place = backup.open(self, listed(callbacks)) or place
        if not initial_epoch or place != (initial_epoch, 0):
            self._timetable = Timetable(self.regime, self.num_stages)
        epochs = self._timetable.check_epochs(epochs)
        if backup is not None and backup.is_over:
            place = (max(epochs, place[0]), 0)
        data = ordered(
            (x, y, sample_weight),
            batch_size=batch_size,
            shuffle=shuffle,
            steps_per_epoch=steps_per_epoch,
            first=place,
            seed=derive_seed(self.seed, DATA),
            keeps_place=backup is not None and not self._has_replicas,
            class_weight=class_weight,
        )
        if backup is not None:
            backup.compare(self, data, class_weight)
        multiplier = only_one(callbacks, MultiplierUpdate)
        self._prepare(data, callbacks, multiplier, backup is not None, goes_on=place != (0, 0))
        feed = Feed(data, self.steps_per_execution, self.regime.cache, self.distribute_strategy)
        self.training_run = TrainingRun(
            self._timetable,
            self._steps,
            self.regime,
            feed,
            data.steps_per_epoch,
            self.steps_per_execution,
            None if multiplier is None else multiplier.initial,
            self._move_idle,
        )
        try:
            with readable_errors():
                return super().fit(
                    data.x,
                    data.y,
                    epochs=epochs,
                    verbose=verbose,
                    callbacks=self._all_callbacks(callbacks, backup, data, verbose, epochs),
                    validation_data=validation_data,
                    shuffle=False,
                    class_weight=data.class_weight,
                    sample_weight=data.sample_weight,
                    initial_epoch=place[0],
                    steps_per_epoch=data.steps_per_epoch,
                    validation_steps=validation_steps,
                    validation_batch_size=validation_batch_size or batch_size,
                    validation_freq=validation_freq,
                )
        finally:
            feed.close()
            self.training_run = None

    def _prepare(
        self, data: TrainingData, callbacks: Any, multiplier: Any, backup: bool, goes_on: bool
    ) -> None:
        """Make what steps need before the first one, and forget traces of other settings."""
        stops = has(callbacks, keras.callbacks.TerminateOnNaN)
        schemes = []
        if multiplier is not None:
            schemes = [multiplier.scheme(k + 1) for k in range(self.num_stages)]
        changed = [
            self._steps.set_raise_on_nan(not stops and not self.jit_compile),
            self._steps.set_multiplier(schemes),
        ]
        # A PyDataset is asked for a batch only where shapes must be known.
        wants = isinstance(self.regime, Buffered) or self._timetable.total_epochs is not None
        wants = wants or self.placement.strategy is not None
        spec = data.first_spec() if wants or backup else data.element_spec
        if spec is not None and not self.built:
            with self.distribute_strategy.scope():
                x = keras.utils.unpack_x_y_sample_weight(spec)[0]
                self.build((None, *keras.tree.flatten(x)[0].shape[1:]))
        if self.built and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build([])
        seed = derive_seed(self.seed, PICKS)
        with self.distribute_strategy.scope():
            size = getattr(data.source, "batch_size", None)
            goes_on = goes_on and isinstance(self.regime, Buffered)
            skews = self.placement.skews
            changed.append(self._steps.use_stores(self.regime, spec, seed, size, goes_on, skews))
        if any(changed):
            self.train_function = None
        if self.built and spec is not None and not tf.distribute.has_strategy():
            self._steps.make_metrics(spec, self._prediction_shapes())

    def _all_callbacks(
        self, callbacks: Any, backup: Any, data: TrainingData, verbose: Any, epochs: int
    ) -> Any:
        from keras_trgl.callbacks.gated_callbacks import GatedCallbacks

        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = self._with_progbar(callbacks, verbose)
        return GatedCallbacks(
            self,
            callbacks,
            backup,
            verbose=verbose,
            epochs=min(epochs, keras.config.max_epochs() or epochs),
            steps=num_batches(data),
        )

    def _with_progbar(self, callbacks: Any, verbose: Any) -> Any:
        from keras_trgl.callbacks.depth_progbar import DepthProgbar

        given = listed(callbacks)
        if has(given, keras.callbacks.ProgbarLogger) or not verbose:
            return given
        return [*given, DepthProgbar()]

    def summary(self, print_fn: Any = print, **kwargs: Any) -> None:
        """Print stages and heads, their parameters, and what each is trained by.

        Args:
            print_fn: function of a str. Defaults to `print`.
            **kwargs: other arguments of `keras.Model.summary`, not used.
        """
        del kwargs
        stages, heads, shape = self._first(self.num_stages)
        optimizers = self.optimizer.optimizers if self.compiled else []
        devices = self.placement.devices
        print_fn(stage_table(self.name, shape, stages, heads, self.method, optimizers, devices))

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
        bring_home(config["stages"], config["heads"], config["method"])
        return cls(**config)
