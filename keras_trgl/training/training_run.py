"""One call of `fit`: where it stands, and where the batches of its steps come from."""

from collections.abc import Callable
from typing import Any

from keras_trgl.feeding.cached_features import CachedFeatures
from keras_trgl.feeding.data_identity import replay
from keras_trgl.feeding.training_data import TrainingData, iterator_files, restore_iterator, weighed
from keras_trgl.regimes.timetable import Position, Timetable
from keras_trgl.training.compiled_steps import CompiledSteps


class Feed:
    """Where batches come from: Keras's own iterator, or one of ours.

    Ours is one endless row of batches, over all epochs. Keras is handed an epoch of it only, as
    tools that wrap Keras's `fit` walk what it is handed to its end, to count or name the data;
    and it begins that epoch anew each time. Ours is needed too where the inputs of a stage are
    cached, and where the place in a `tf.data` pipeline is kept by a checkpoint of its iterator.

    Args:
        data: what the run trains on.
        steps_per_execution: int.
        cache: `FeatureCache` or `None`.
        strategy: the model's `tf.distribute.Strategy`.
        needs_data: bool. Whether cached features come as a pair with the network's data. Defaults
            to `False`.
        take: function that gives `x` of the data as the first stage takes it, or `None`.
        verbose: as in `fit`: whether filling a cache is told of. Defaults to `0`.
    """

    def __init__(
        self,
        data: TrainingData,
        steps_per_execution: int,
        cache: Any,
        strategy: Any,
        needs_data: bool = False,
        take: Callable[[Any], Any] | None = None,
        verbose: Any = 0,
    ) -> None:
        self._data = data
        self._strategy = strategy
        self._cached = None
        if cache is not None:
            self._cached = CachedFeatures(
                data.source, cache, data.seed, data.is_shuffled, needs_data, take, verbose
            )
        steps = data.steps_per_epoch
        self._runs_over = steps is not None and steps % steps_per_execution > 0
        self._iterator: Any = None
        self._at: Any = None
        self._kept = data.kept_iterator
        self._pass: Any = None
        self._passes_made = 0
        self._iterator_is_ours = False

    @property
    def level(self) -> int:
        """Position of the stage whose inputs the batches hold; 0 for the data."""
        return 0 if self._cached is None else self._cached.level

    @property
    def is_positioned(self) -> bool:
        """Whether batches come from the step that was asked for, rather than an epoch's first."""
        is_ours = self._kept is not None or self._data.passes is not None
        return self.level > 0 or self._data.stream is not None or is_ours

    def begin_visit(self, level: int, stages: list[Any]) -> None:
        """Make the inputs of the stage at position `level` what batches hold, if cached."""
        if self._cached is not None and level != self._cached.level:
            self._iterator = self._at = None
            self._cached.advance(level, stages)

    def begin_epoch(self, epoch: int, skipped: int) -> None:
        """Go to a step, unless the iterator stands there already."""
        self._iterator_is_ours = self.level > 0 or self._data.stream is not None
        if self._data.passes is not None:
            self._begin_pass(epoch, skipped)
        if not self._iterator_is_ours:
            return
        source: Any = self._cached if self.level else self._data
        steps = self._data.steps_per_epoch or source.steps_per_epoch
        place = (self.level, epoch * steps + skipped)
        # An iterator that stands there goes on: a new one would fill its buffers once more.
        if self._at != place or self._runs_over:
            dataset = weighed(source.from_step(place[1]), self._data.class_weight)
            if self._runs_over:
                # An execution of several steps would take the rest from the next epoch.
                dataset = dataset.take(steps - skipped)
            self._iterator = iter(self._strategy.experimental_distribute_dataset(dataset))
        self._at = (self.level, (epoch + 1) * steps)

    def _begin_pass(self, epoch: int, skipped: int) -> None:
        """Go to a step of a pass over a pipeline; each iterator draws the next order."""
        while self._passes_made <= epoch:
            made = iter(self._data.passes)
            self._passes_made += 1
        if self.level == 0:
            for _ in range(skipped):
                next(made)
            self._pass = made

    def iterator(self, given: Any) -> Any:
        """Give what the next step takes its batch from.

        Args:
            given: Keras's iterator.
        """
        if self._iterator_is_ours:
            return self._iterator
        if self._pass is not None:
            return self._pass
        return given if self._kept is None else self._kept

    def drop(self, given: Any, count: int) -> None:
        """Take batches that were trained on before, where they come again."""
        if not self.is_positioned:
            for _ in range(count):
                next(given)

    def files(self) -> dict[str, bytes]:
        """Give the place in a `tf.data` pipeline as files, where it is kept so."""
        return {} if self._kept is None else iterator_files(self._kept)

    def restore_files(self, files: dict[str, bytes]) -> None:
        """Go to the place in a `tf.data` pipeline that `files` tell."""
        if self._kept is not None and files:
            restore_iterator(self._kept, files)

    def replay(self, epochs: int) -> None:
        """Let data with a state of their own end the epochs that a restored run has done."""
        replay(self._data.source, epochs)

    def close(self) -> None:
        """Let go of the cache."""
        self._iterator = self._at = self._pass = None
        if self._cached is not None:
            self._cached.close()


class TrainingRun:
    """Where a run stands, and what its next step does.

    Args:
        timetable: the run's `Timetable`.
        steps: the stages' steps.
        regime: the run's `Regime`.
        feed: where batches come from.
        steps_per_epoch: int, or `None` where only the data's end tells.
        steps_per_execution: int.
        initial_multiplier: float, λ at the start of a visit; `None` is 2τ. Only where the
            steps' multipliers move.
        place: function of (plan, device) that moves the variables of the stages that do not step
            to a device, and those of the others to this one.
        best: `BestWeights`, where the regime's `stop` restores them, or `None`.

    Attributes:
        epoch: int. Epoch of the whole run, from 0.
        step: int. Batches of the epoch that are done.
        steps_done: int. Batches of the whole run that are done.
        position: `Position` of the epoch.
        unsettled: tuple of ints, positions of the stages that train on till their visit ends.
    """

    def __init__(
        self,
        timetable: Timetable,
        steps: CompiledSteps,
        regime: Any,
        feed: Feed,
        steps_per_epoch: int | None,
        steps_per_execution: int,
        initial_multiplier: float | None = None,
        place: Callable[[Any, str], Any] | None = None,
        best: Any = None,
    ) -> None:
        self.timetable = timetable
        self.feed = feed
        self.epoch = self.step = self.steps_done = 0
        self.position: Position = timetable.position(0)
        self._steps = steps
        self._regime = regime
        self._per_epoch = steps_per_epoch
        self._per_execution = steps_per_execution
        self._initial_multiplier = initial_multiplier
        self._move = place
        self._best = best
        # A run restored at its end begins no epoch: in turn its visits are settled in the backup,
        # else Keras settles all stages once more, as it would have.
        in_turn = timetable.total_epochs is not None
        self.unsettled: tuple[int, ...] = () if in_turn else self.position.plan
        self._left_out = 0
        self._begins = self._over = False

    @property
    def key(self) -> tuple[Any, ...]:
        """What the traced step depends on."""
        return self.position.plan, self.feed.level

    @property
    def is_over(self) -> bool:
        """Whether the regime's last epoch has been done."""
        return self._over

    @property
    def is_within_epoch(self) -> bool:
        """Whether batches of the epoch are still to come, as far as it is known."""
        return self._per_epoch is None or self.step < self._per_epoch

    @property
    def passes_by(self) -> bool:
        """Whether the next execution was done before the run was restored."""
        return self._left_out > 0

    def stand_at(self, epoch: int, step: int) -> None:
        """Say where the run stands, without a change of what it trains on.

        Args:
            epoch: int. Epoch of the whole run, from 0.
            step: int. Batches of it that a restored run has done, in whole executions.
        """
        self.epoch, self.step, self._over = epoch, step, False
        # Whole executions: the last one of an epoch may have been a short one.
        self._left_out = -(-step // self._per_execution)
        self.position = self.timetable.position(epoch)

    def begin_epoch(self, epoch: int, step: int = 0) -> None:
        """Go to an epoch: start its visit, fill the cache, stand at the step.

        Args:
            epoch: int. Epoch of the whole run, from 0.
            step: int. Batches of it that a restored run has done. Defaults to `0`.
        """
        self.stand_at(epoch, step)
        self.unsettled = self.position.plan
        idle, first = self._regime.idle_device, min(self.position.plan)
        if idle is not None and self._move is not None:
            # Before the cache is filled: its stages run where they will live.
            self._move(self.position.plan, idle)
        if self.position.begins_visit and step == 0:
            self._steps.start_multipliers(self.position.plan, self._initial_multiplier)
        self.feed.begin_visit(first, [one.pass_on for one in self._steps.steps])
        self.feed.begin_epoch(epoch, step)
        self._begins = True

    def end_epoch(self, epoch: int, logs: dict[str, Any]) -> None:
        """Take the logs of an epoch that ended, and say in them where it stood."""
        logs.update(self.position.logs)
        self._over = self.timetable.end_epoch(epoch, logs)
        if self._best is not None and self.timetable.improved:
            self._best.keep(max(self.position.plan))

    @property
    def stage_steps(self) -> list[Any]:
        """The stages' steps, in order."""
        return self._steps.steps

    def end_visit(self, epoch: int) -> None:
        """Let this epoch be the last of its visit."""
        self.timetable.end_visit(epoch)
        self._over = self.timetable.is_over(epoch)

    def ends_visit(self, epoch: int) -> bool:
        """Tell whether an epoch is the last of its visit."""
        return self.timetable.ends_visit(epoch)

    def settle(self) -> None:
        """Give the stages of a visit that is over the weights that later stages train on."""
        for k in self.unsettled:
            self._steps.steps[k].settle_average()
        if self._best is not None and self.timetable.has_best:
            self._best.put_back(max(self.position.plan))
        self.unsettled = ()

    def leaves_out(self, given: Any) -> bool:
        """Tell whether the next execution was done before the run was restored."""
        if not self._left_out:
            if self._begins:
                # Callbacks have set the epoch's rates by now.
                self._begins = False
                self._watch_rates()
            return False
        self._left_out -= 1
        self.feed.drop(given, self._per_execution)
        return True

    def count(self) -> None:
        """Count an execution that is done."""
        done = self.step + self._per_execution
        done = done if self._per_epoch is None else min(done, self._per_epoch)
        self.steps_done += done - self.step
        self.step = done

    def get_state(self) -> dict[str, Any]:
        """Give the place as plain numbers."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "steps_done": self.steps_done,
            "timetable": self.timetable.get_state(),
            "rates": [] if self._steps.stored is None else self._steps.stored.rates,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from `get_state`'s result; `begin_epoch` goes to the place itself."""
        self.steps_done = state["steps_done"]
        self.timetable.set_state(state["timetable"])
        if self._steps.stored is not None:
            self._steps.stored.rates = state["rates"]

    def _watch_rates(self) -> None:
        """Let stores begin with a warm-up again after a change of the learning rate."""
        stored = self._steps.stored
        if stored is None:
            return
        rates: list[float | None] = []
        for one in self._steps.steps:
            optimizer = getattr(one.optimizer, "inner_optimizer", one.optimizer)
            rate = optimizer.get_config().get("learning_rate")
            # A schedule moves in every step, and is no change.
            rates.append(float(rate) if isinstance(rate, (int, float)) else None)
        # The first rates are no change: nothing was stored under others.
        if stored.rates and rates != stored.rates:
            stored.warm_up()
        stored.rates = rates
