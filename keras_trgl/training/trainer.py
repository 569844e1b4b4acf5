"""What trains a model: its compiled steps, and one call of `fit`.

A plain object that a `GreedyModel` holds and hands over to. It asks the model for what Keras keeps
there: the strategy, the compile settings, the train function.
"""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.feeding.training_data import (
    TrainingData,
    check_labels,
    check_ready,
    ordered,
    split_validation,
)
from keras_trgl.network.staged_network import StagedNetwork
from keras_trgl.regimes.buffered import Buffered
from keras_trgl.regimes.regime import Regime
from keras_trgl.regimes.timetable import Timetable
from keras_trgl.seeds import DATA, PICKS, derive_seed
from keras_trgl.training.compiled_steps import CompiledSteps, readable_errors
from keras_trgl.training.given_callbacks import GivenCallbacks, has
from keras_trgl.training.optimizers import StageOptimizers
from keras_trgl.training.stage_step import check_label_range
from keras_trgl.training.subclass_hooks import SubclassHooks
from keras_trgl.training.training_run import Feed, TrainingRun

SETTINGS = ("loss", "loss_weights", "metrics", "weighted_metrics")
"""Arguments of `compile` that every exit gets."""


@dataclasses.dataclass
class FitArguments:
    """The arguments of `keras.Model.fit`, as the user gave them; see there."""

    x: Any
    y: Any
    batch_size: int | None
    epochs: int | None
    verbose: Any
    callbacks: Any
    validation_split: float
    validation_data: Any
    shuffle: bool
    class_weight: Any
    sample_weight: Any
    initial_epoch: int
    steps_per_epoch: int | None
    validation_steps: int | None
    validation_batch_size: int | None
    validation_freq: Any

    @classmethod
    def of(cls, local: dict[str, Any]) -> "FitArguments":
        """Pick them from the local variables of `fit`, which has a parameter for each."""
        return cls(**{field.name: local[field.name] for field in dataclasses.fields(cls)})


class Trainer:
    """Compiles, trains and evaluates the stages of one model.

    Args:
        model: the model, whose Keras settings count.
        network: its stages and heads.
        regime: when stages step.
        base: the class whose methods are no override of the user's.

    Attributes:
        steps: the stages' compiled steps; none before `compile`.
        run: where a call of `fit` stands, or `None` outside one.
    """

    def __init__(
        self, model: keras.Model, network: StagedNetwork, regime: Regime, base: type
    ) -> None:
        self.steps = CompiledSteps()
        self.run: TrainingRun | None = None
        self.hooks = SubclassHooks(model, base)
        self._model = model
        self._network = network
        self._regime = regime
        self._timetable = Timetable(regime, network.num_stages)
        self._evaluating = False

    def compile(self, given: dict[str, Any]) -> dict[str, Any]:
        """Make the stages' steps, and give the arguments for Keras's own `compile`.

        Args:
            given: the local variables of the model's `compile`, with a name for each argument.
        """
        network, optimizer = self._network, given["optimizer"]
        settings = {name: given[name] for name in SETTINGS}
        loop = {name: given[name] for name in ("run_eagerly", "steps_per_execution")}
        # "auto" is off: XLA orders the stages as it likes, and memory is not saved.
        loop["jit_compile"] = given["jit_compile"] is True
        on = None if network.placement.strategy is None else network.placement.on
        optimizers = StageOptimizers.from_template(optimizer, network.num_stages, on)
        if given["auto_scale_loss"] and self._model.dtype_policy.name == "mixed_float16":
            optimizers.scale_losses()
        self.steps = CompiledSteps(network, optimizers.optimizers, self.hooks, **settings)
        optimizers.bind(self.steps.trainable_variables)
        self.steps.compiled_with = {"optimizer": optimizers, **settings, **loop}
        # Losses and metrics live in the steps: Keras's own loop sees the optimizer alone.
        return {"optimizer": optimizers, "auto_scale_loss": False, **loop}

    def settle(self) -> None:
        """Move what was made before the stages' devices were known."""
        self.steps.settle(self._network.placement)

    def task_loss(self, **asked: Any) -> Any:
        """Give the compiled loss of the exit that speaks now, or of the last depth.

        Args:
            **asked: as in `keras.Model.compute_loss`.
        """
        return self._exit().compute_loss(**asked)

    def update_metrics(self, *asked: Any) -> None:
        """Update the compiled metrics of the exit that speaks now, or of the last depth."""
        self._exit().compute_metrics(*asked)

    def _exit(self) -> Any:
        check_ready(self._model)
        return self.hooks.exit or self.steps.steps[-1].exit

    @property
    def key(self) -> tuple[Any, ...]:
        """The stages that step, and the one that batches enter at."""
        if self.run is None:
            return self._regime.plan(self._network.num_stages), 0
        return self.run.key

    @property
    def stored(self) -> Any:
        """The step that takes batches from stores, if it is to be taken now.

        A single batch outside `fit` goes through all stages of the parallel regime at once.
        """
        in_fit = self.run is not None or isinstance(self._regime, Buffered)
        return self.steps.stored if in_fit else None

    def train_on(self, data: Any) -> dict[str, Any]:
        """Let the stages that the regime plans step on one batch, and give the logs."""
        (x, y, sample_weight), needs_data = self._unpack(data), self.steps.needs_data
        (plan, level), told = self.key, dict[str, Any]()
        features, given = (x, x) if level == 0 or not needs_data else x
        rest = (y, sample_weight, given if needs_data else None)
        if self.stored is not None:
            self.stored((features, *rest))
            return self.results()
        for k in range(level, max(plan) + 1):
            step = self.steps.steps[k]
            if k in plan:
                features = step.train((features, *rest), hands_on=k < max(plan))
            else:
                features = step.pass_on(features, training=self._regime.frozen == "train")
        if self.hooks.overrides_metrics:
            told = self.hooks.metrics(step.exit, given, y, step.prediction, sample_weight)
        return {**self.results(), **told}

    def evaluate_on(self, data: Any) -> dict[str, Any]:
        """Evaluate every depth on one batch, and give the logs."""
        x, y, sample_weight = self._unpack(data)
        rest = (y, sample_weight, x if self.steps.needs_data else None)
        features, told = x, dict[str, Any]()
        for step in self.steps.steps:
            is_last = step is self.steps.steps[-1]
            features = step.evaluate((features, *rest), speaks=is_last)
        with self.evaluating():
            if self.hooks.overrides_metrics:
                told = self.hooks.metrics(step.exit, x, y, step.prediction, sample_weight)
            return {**self.results(), **told}

    def results(self) -> dict[str, Any]:
        """Give the last depth's loss and metrics, every stage's, and a subclass's own."""
        plan = range(self._network.num_stages) if self._evaluating else self.key[0]
        results = self.steps.results(not self._evaluating, plan)
        for metric in self.own_metrics:
            value = metric.result()
            results.update(value if isinstance(value, dict) else {metric.name: value})
        return results

    def drained_results(self) -> dict[str, Any]:
        """Give the results of all batches: Keras asks for them at the end of an epoch."""
        if not self._evaluating:
            self._model.drain()
        return self.results()

    @property
    def own_metrics(self) -> list[Any]:
        """Metrics that a subclass, or a user's layer, keeps as attributes."""
        held = {id(metric) for metric in self.steps.metrics}
        return [metric for metric in self._model.metrics if id(metric) not in held]

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Let results speak of every depth in evaluation, not of the stages that train."""
        before, self._evaluating = self._evaluating, True
        try:
            yield
        finally:
            self._evaluating = before

    @contextlib.contextmanager
    def evaluating_data(
        self, args: Any, kwargs: dict[str, Any], callbacks: GivenCallbacks
    ) -> Iterator[dict[str, Any]]:
        """Check the data of an evaluation, and give Keras's own call its named arguments.

        Args:
            args: positional arguments of `evaluate`.
            kwargs: named ones.
            callbacks: the package's, for the progress bar.

        Raises:
            ValueError: labels out of range.
        """
        check_ready(self._model)
        if len(args) > 1 or "y" in kwargs:
            self.check_labels(args[1] if len(args) > 1 else kwargs["y"], "y")
        if "callbacks" not in kwargs and len(args) < 7:
            bar = callbacks.with_progbar(kwargs.get("verbose", "auto"))
            kwargs = {**kwargs, "callbacks": bar}
        self.drain()
        with self.evaluating():
            yield kwargs

    def last_depth(self, logs: dict[str, Any]) -> Any:
        """Give what `evaluate` returns without `return_dict`: the deepest trained stage's."""
        names: list[str] = []
        # Stages that never stepped have no metrics yet: the deepest that has some speaks.
        for step in reversed(self.steps.steps):
            with contextlib.suppress(ValueError):
                names = list(step.exit.get_metrics_result())
                break
        values = [logs[name] for name in names]
        return values[0] if len(values) == 1 else values

    def _unpack(self, data: Any) -> tuple[Any, Any, Any]:
        model = self._model
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if not model.built:
            with tf.init_scope():
                model.build((None, *keras.tree.flatten(x)[0].shape[1:]))
                model.optimizer.build([])
        if self.steps.has_class_indices and y is not None and not model.jit_compile:
            y = check_label_range(y, self.units)
        return x, y, sample_weight

    @property
    def units(self) -> int:
        """Numbers in a prediction of the last depth."""
        return int(self._network.output_shape(self._network.input_shape or ())[-1] or 0)

    def check_labels(self, y: Any, where: str) -> None:
        """Raise if class indices in an array are out of range.

        Raises:
            ValueError: they are.
        """
        if self._model.built and self.steps.has_class_indices:
            check_labels(y, self.units, where)

    def train_function(self, make: Callable[..., Any]) -> Any:
        """Give what `fit` calls for every execution: a traced function per plan of the regime.

        Args:
            make: Keras's own `make_train_function`.
        """
        functions: dict[Any, Any] = {}
        model = self._model
        if self.steps.stored is not None:
            self.steps.stored.retrace()

        def train_function(iterator: Any) -> Any:
            run = self.run
            if run is not None and run.leaves_out(iterator):
                return self.results()
            key = (self.key, self.stored)
            if key not in functions:
                # Keras makes the function in place of this one.
                outer = model.train_function
                make(force=True)
                functions[key], model.train_function = model.train_function, outer
            if run is None:
                return functions[key](iterator)
            logs = functions[key](run.feed.iterator(iterator))
            run.count()
            return logs

        return train_function

    def drain(self) -> None:
        """Let later stages train on the batches that are on their way to them."""
        if self.steps.stored is not None:
            self.steps.stored.drain_all(self._model.run_eagerly)

    def state_variables(self) -> dict[str, list[Any]]:
        """Give all variables that training changes, by group, in a fixed order."""
        model, stored = self._model, self.steps.stored
        return {
            "model": list(model.variables),
            "metrics": [variable for one in model.metrics for variable in one.variables],
            "optimizer": list(model.optimizer.variables),
            "stores": [] if stored is None else stored.variables,
        }

    @contextlib.contextmanager
    def fitting(self, given: FitArguments, callbacks: GivenCallbacks) -> Iterator[dict[str, Any]]:
        """Prepare a call of `fit`, and give the arguments for Keras's own.

        Args:
            given: the user's arguments.
            callbacks: the user's callbacks.

        Raises:
            ValueError: labels out of range, `epochs` that are not the regime's, or a check that
                failed inside a step.
        """
        check_ready(self._model)
        if given.validation_split and given.validation_data is None:
            (given.x, given.y, given.sample_weight), given.validation_data = split_validation(
                (given.x, given.y, given.sample_weight), given.validation_split
            )
        self.check_labels(given.y, "y")
        self._check_validation(given.validation_data)
        place = (given.initial_epoch, 0)
        if callbacks.backup is not None:
            place = callbacks.backup.open(callbacks.others) or place
        if not given.initial_epoch or place != (given.initial_epoch, 0):
            self._timetable = Timetable(self._regime, self._network.num_stages)
        epochs = self._timetable.check_epochs(given.epochs)
        data = self._ordered(given, place, callbacks.backup)
        self._prepare(data, callbacks, goes_on=place != (0, 0))
        self.run = self._new_run(data, callbacks)
        try:
            with readable_errors():
                yield {
                    "x": data.x,
                    "y": data.y,
                    "epochs": epochs,
                    "verbose": given.verbose,
                    "callbacks": callbacks.all_for(self._model, given.verbose),
                    "validation_data": given.validation_data,
                    "shuffle": False,
                    "class_weight": data.class_weight,
                    "sample_weight": data.sample_weight,
                    "initial_epoch": place[0],
                    "steps_per_epoch": data.steps_per_epoch,
                    "validation_steps": given.validation_steps,
                    "validation_batch_size": given.validation_batch_size or given.batch_size,
                    "validation_freq": given.validation_freq,
                }
        finally:
            self.run.feed.close()
            self.run = None

    def _ordered(self, given: FitArguments, place: tuple[int, int], backup: Any) -> TrainingData:
        data = ordered(
            (given.x, given.y, given.sample_weight),
            batch_size=given.batch_size,
            shuffle=given.shuffle,
            steps_per_epoch=given.steps_per_epoch,
            first=place,
            seed=derive_seed(self._network.seed, DATA),
            keeps_place=backup is not None and not self._has_replicas,
            class_weight=given.class_weight,
        )
        if backup is not None and not data.is_replayable:
            warnings.warn(
                "The place in these data cannot be saved: a restored run goes on from the first "
                "batches of the epoch, not bit for bit. Pass arrays, a `PyDataset`, or a "
                "`tf.data.Dataset` of known length without Python functions.",
                # The caller of `fit`: through the context manager's two frames, and `fit` itself.
                stacklevel=5,
            )
        return data

    def _new_run(self, data: TrainingData, callbacks: GivenCallbacks) -> TrainingRun:
        model, multiplier = self._model, callbacks.multiplier
        feed = Feed(
            data,
            model.steps_per_execution,
            self._regime.cache,
            model.distribute_strategy,
            self.steps.needs_data,
        )
        return TrainingRun(
            self._timetable,
            self.steps,
            self._regime,
            feed,
            data.steps_per_epoch,
            model.steps_per_execution,
            None if multiplier is None else multiplier.initial,
            self._move_idle,
        )

    def _move_idle(self, plan: tuple[int, ...], device: str) -> None:
        """Move stages to where the regime has them, and trace anew if any moved."""
        model = self._model
        if self.steps.place(plan, device, model.optimizer):
            model.train_function = model.test_function = model.predict_function = None
            model.make_train_function()

    @property
    def _has_replicas(self) -> bool:
        """Whether the model was made under a strategy of replicas, which may be one."""
        with self._model.distribute_strategy.scope():
            return bool(tf.distribute.has_strategy()) and self._network.placement.strategy is None

    def _check_validation(self, validation_data: Any) -> None:
        if isinstance(validation_data, (list, tuple)) and len(validation_data) > 1:
            self.check_labels(validation_data[1], "validation labels")
        stop = self._regime.stop
        if validation_data is None and stop is not None and stop.monitor.startswith("val_"):
            raise ValueError(
                f"`StopStage` watches {stop.monitor!r}, which takes validation data. Received: "
                "validation_data=None. Pass them to `fit`, or watch 'loss'."
            )

    def _prepare(self, data: TrainingData, callbacks: GivenCallbacks, goes_on: bool) -> None:
        """Make what steps need before the first one, and forget traces of other settings."""
        model, placement = self._model, self._network.placement
        stops = has(callbacks.given, keras.callbacks.TerminateOnNaN)
        schemes = []
        if callbacks.multiplier is not None:
            depths = range(1, self._network.num_stages + 1)
            schemes = [callbacks.multiplier.scheme(depth) for depth in depths]
        changed = [
            self.steps.set_raise_on_nan(not stops and not model.jit_compile),
            self.steps.set_multiplier(schemes),
        ]
        # A PyDataset is asked for a batch only where shapes must be known.
        wants = isinstance(self._regime, Buffered) or self._timetable.total_epochs is not None
        wants = wants or placement.strategy is not None or self.steps.seeks_loss_names
        wants = wants or callbacks.backup is not None
        spec = data.first_spec() if wants else data.element_spec
        self._build(spec)
        seed = derive_seed(self._network.seed, PICKS)
        with model.distribute_strategy.scope():
            size = getattr(data.source, "batch_size", None)
            goes_on = goes_on and isinstance(self._regime, Buffered)
            changed.append(
                self.steps.use_stores(self._regime, spec, seed, size, goes_on, placement.skews)
            )
        if any(changed):
            model.train_function = None
        if model.built and spec is not None and not tf.distribute.has_strategy():
            self.steps.make_metrics(spec, self._network.prediction_shapes)
        self.find_loss_names(spec)

    def _build(self, spec: Any) -> None:
        """Build model and optimizers, where the shapes are known and they are not built yet."""
        model = self._model
        with model.distribute_strategy.scope():
            if spec is not None and not model.built:
                x = keras.utils.unpack_x_y_sample_weight(spec)[0]
                model.build((None, *keras.tree.flatten(x)[0].shape[1:]))
            if model.built and not model.optimizer.built:
                model.optimizer.build([])

    def find_loss_names(self, spec: Any) -> None:
        """Learn what the method logs, before a step is traced.

        Args:
            spec: structure of `tf.TensorSpec`, a batch, or `None` if it is not known.
        """
        if self._model.built:
            with self._model.distribute_strategy.scope():
                self.steps.find_loss_names(spec)
