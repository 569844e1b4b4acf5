"""One call of `fit`: the data in an order to replay, what steps need before the first one, the run.

Everything here happens once a call; what happens once a batch is in `trainer`.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.checks import check_class_weight
from keras_trgl.feeding.data_identity import num_batches
from keras_trgl.feeding.training_data import (
    TrainingData,
    check_ends,
    check_fit_numbers,
    check_ready,
    is_array_like,
    ordered,
    split_validation,
)
from keras_trgl.network.door import plain
from keras_trgl.regimes.buffered import Buffered
from keras_trgl.regimes.timetable import Timetable
from keras_trgl.seeds import DATA, derive_seed
from keras_trgl.training.best_weights import BestWeights
from keras_trgl.training.compiled_steps import readable_errors
from keras_trgl.training.given_callbacks import GivenCallbacks, has, listed
from keras_trgl.training.trainer import Trainer
from keras_trgl.training.training_run import Feed, TrainingRun


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


class FitSetup:
    """Prepares calls of `fit` of one model, and keeps its place in the regime between them.

    Args:
        model: the model, whose Keras settings count.
        trainer: what trains it.
    """

    def __init__(self, model: keras.Model, trainer: Trainer) -> None:
        self._model = model
        self._trainer = trainer
        self._network = trainer.network
        self._regime = trainer.regime
        self._timetable = Timetable(trainer.regime, trainer.network.num_stages)

    @contextlib.contextmanager
    def running(self, given: FitArguments, callbacks: GivenCallbacks) -> Iterator[dict[str, Any]]:
        """Prepare a call of `fit`, and give the arguments for Keras's own.

        Args:
            given: the user's arguments.
            callbacks: the user's callbacks.

        Raises:
            ValueError: labels out of range, `epochs` that are not the regime's, or a check that
                failed inside a step.
        """
        check_ready(self._model, True, self._trainer.hooks.overrides_loss)
        check_fit_numbers(
            given.epochs, given.batch_size, given.initial_epoch, given.steps_per_epoch
        )
        self._model.optimizer.take_up_rate()
        # Before `plain` takes the array out of its dict: the key names the input.
        self._network.door.note(given.x)
        if is_array_like(given.x):
            given.x = plain(given.x)
        self._network.check_form((given.x,), {})
        given.class_weight = self._all_classes(given.class_weight)
        if given.validation_split and given.validation_data is None:
            (given.x, given.y, given.sample_weight), given.validation_data = split_validation(
                (given.x, given.y, given.sample_weight), given.validation_split
            )
        self._trainer.check_labels(given.y, "y")
        self._check_validation(given.validation_data, callbacks)
        with contextlib.ExitStack() as after:
            place = (given.initial_epoch, 0)
            if callbacks.backup is not None:
                # However `fit` ends, another run may have the folder then.
                after.callback(callbacks.backup.close)
                place = callbacks.backup.open(self._model, listed(callbacks.given)) or place
            # A plain `fit` begins the regime anew; one that says where it begins goes on in it.
            if not given.initial_epoch or place != (given.initial_epoch, 0):
                self._timetable = Timetable(self._regime, self._network.num_stages)
            epochs = self._timetable.check_epochs(given.epochs)
            if callbacks.backup is not None and callbacks.backup.is_over:
                place = (max(epochs, place[0]), 0)
            # A backup is compared here, before anything of this model is built or moved.
            data = self._ordered(given, place, callbacks.backup)
            if self._timetable.total_epochs is not None:
                check_ends(data)
            self._prepare(data, callbacks, goes_on=place != (0, 0))
            self._trainer.run = run = self._new_run(data, callbacks, given.verbose)
            after.callback(self._end, run)
            with readable_errors():
                yield self._for_keras(given, callbacks, data, epochs, place[0])

    def _end(self, run: TrainingRun) -> None:
        run.feed.close()
        self._trainer.end_run()

    def _for_keras(
        self,
        given: FitArguments,
        callbacks: GivenCallbacks,
        data: TrainingData,
        epochs: int,
        initial_epoch: int,
    ) -> dict[str, Any]:
        """Give the arguments of Keras's own `fit`."""
        steps = num_batches(data)
        return {
            "x": data.x,
            "y": data.y,
            # Keras passes over it, as batches are made; tools that wrap its `fit` log it.
            "batch_size": getattr(data.stream, "batch_size", None),
            "epochs": epochs,
            "verbose": given.verbose,
            "callbacks": callbacks.all_for(self._model, given.verbose, epochs, steps),
            "validation_data": given.validation_data,
            # The data come in their order already, a function of (seed, epoch, step).
            "shuffle": False,
            "class_weight": data.class_weight,
            "sample_weight": data.sample_weight,
            "initial_epoch": initial_epoch,
            "steps_per_epoch": data.steps_per_epoch,
            "validation_steps": given.validation_steps,
            "validation_batch_size": given.validation_batch_size or given.batch_size,
            "validation_freq": given.validation_freq,
        }

    def _all_classes(self, class_weight: Any) -> Any:
        """Give class weights with 1 for classes that were left out, as Keras's own metrics do."""
        check_class_weight(class_weight)
        if not class_weight:
            return class_weight
        units = int(getattr(self._network.heads[-1], "units", 0))
        count = max(2, units, max(class_weight) + 1)
        return {k: float(class_weight.get(k, 1.0)) for k in range(count)}

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
        if backup is not None:
            backup.compare(self._model, data, given.class_weight)
        return data

    def _new_run(self, data: TrainingData, callbacks: GivenCallbacks, verbose: Any) -> TrainingRun:
        model, multiplier = self._model, callbacks.multiplier
        feed = Feed(
            data,
            model.steps_per_execution,
            self._regime.cache,
            model.distribute_strategy,
            self._trainer.steps.needs_data,
            self._trainer.take,
            verbose,
        )
        return TrainingRun(
            self._timetable,
            self._trainer.steps,
            self._regime,
            feed,
            data.steps_per_epoch,
            model.steps_per_execution,
            None if multiplier is None else multiplier.initial,
            self._move_idle,
            self._trainer.best,
        )

    def _move_idle(self, plan: tuple[int, ...], device: str) -> None:
        """Move stages to where the regime has them, and trace anew if any moved."""
        model = self._model
        if self._trainer.steps.place(plan, device, model.optimizer):
            # A traced function holds the variables where they were.
            model.train_function = model.test_function = model.predict_function = None
            model.make_train_function()

    @property
    def _has_replicas(self) -> bool:
        """Whether the model was made under a strategy of replicas, which may be one."""
        with self._model.distribute_strategy.scope():
            return bool(tf.distribute.has_strategy()) and self._network.placement.strategy is None

    def _check_validation(self, validation_data: Any, callbacks: GivenCallbacks) -> None:
        if isinstance(validation_data, (list, tuple)) and len(validation_data) > 1:
            self._trainer.check_labels(validation_data[1], "validation labels")
        stop = self._regime.stop
        if validation_data is None and stop is not None and stop.monitor.startswith("val_"):
            raise ValueError(
                f"`StopStage` watches {stop.monitor!r}, which takes validation data. Received: "
                "validation_data=None. Pass them to `fit`, or watch 'loss'."
            )
        for one in listed(callbacks.given) if validation_data is None else ():
            if getattr(one, "needs_validation", False):
                raise ValueError(
                    f"`{type(one).__name__}` watches {one.monitor!r}, which takes validation data. "
                    "Received: validation_data=None. Pass them to `fit`, or watch "
                    f"{one.monitor.removeprefix('val_')!r}."
                )

    def _prepare(self, data: TrainingData, callbacks: GivenCallbacks, goes_on: bool) -> None:
        """Make what steps need before the first one, and forget traces of other settings."""
        model, placement = self._model, self._network.placement
        # That callback ends training itself, and wants to see the loss that is none.
        stops = has(callbacks.given, keras.callbacks.TerminateOnNaN)
        schemes = []
        if callbacks.multiplier is not None:
            depths = range(1, self._network.num_stages + 1)
            schemes = [callbacks.multiplier.scheme(depth) for depth in depths]
        changed = [
            self._trainer.steps.set_raise_on_nan(not stops and not model.jit_compile),
            self._trainer.steps.set_multiplier(schemes),
        ]
        # A PyDataset is asked for a batch only where shapes must be known.
        wants = isinstance(self._regime, Buffered) or self._timetable.total_epochs is not None
        wants = wants or placement.strategy is not None or self._trainer.steps.seeks_loss_names
        wants = wants or callbacks.backup is not None or self._trainer.steps.is_delayed
        spec = data.first_spec() if wants else data.element_spec
        if spec is not None:
            self._trainer.check_form(keras.utils.unpack_x_y_sample_weight(spec)[1])
        with model.distribute_strategy.scope():
            x = None if spec is None else keras.utils.unpack_x_y_sample_weight(spec)[0]
            self._trainer.build_for(x)
        stop = self._regime.stop
        if model.built and stop is not None and stop.restore_best and self._trainer.best is None:
            self._trainer.best = BestWeights(self._network.parts)
        with model.distribute_strategy.scope():
            size = getattr(data.source, "batch_size", None)
            goes_on = goes_on and isinstance(self._regime, Buffered)
            changed.append(self._trainer.use_stores(spec, size, goes_on))
        if any(changed):
            model.train_function = None
        # Under a strategy of replicas variables may not be made in the context across them.
        if model.built and spec is not None and not tf.distribute.has_strategy():
            self._trainer.steps.make_metrics(spec, self._network.prediction_shapes)
        self._trainer.find_loss_names(spec)
