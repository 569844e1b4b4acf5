"""All stages' steps, as `compile` made them, out of Keras's sight.

Keras would track a model's attributes as layers and metrics and fold their losses together; this
plain object keeps the K exits apart.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.devices import current_device, device_name, move_variables
from keras_trgl.feeding.batch_forms import open_spec
from keras_trgl.layers.chain import passes_several
from keras_trgl.methods.delayed import DelayedMethod
from keras_trgl.methods.unit_images import OUTSIDE
from keras_trgl.network.placement import Placement
from keras_trgl.network.staged_network import StagedNetwork
from keras_trgl.regimes.buffered import Buffered
from keras_trgl.regimes.parallel import Parallel
from keras_trgl.training.buffered_step import BufferedStep
from keras_trgl.training.delayed_step import delayed_step
from keras_trgl.training.exit_settings import Exit, exit_settings, losses_of
from keras_trgl.training.finite import NOT_FINITE
from keras_trgl.training.labels import LABEL_RANGE
from keras_trgl.training.linked_step import LinkedStep
from keras_trgl.training.loss_form import loss_name
from keras_trgl.training.optimizers import StageOptimizers
from keras_trgl.training.remat import Remat, segment_length, tell_of_no_use
from keras_trgl.training.skewed_step import SkewedStep
from keras_trgl.training.stage_objective import MultiplierScheme, check_loss_names
from keras_trgl.training.stage_step import StageStep
from keras_trgl.training.stored_step import StoredStep
from keras_trgl.training.subclass_hooks import SubclassHooks
from keras_trgl.types import Shape

WAYS_OUT = {
    NOT_FINITE: "The stage's weights are as before this step. Lower the learning rate, clip "
    "gradients (`clipnorm`), or look for NaN in the data; to stop without an error use "
    "`keras.callbacks.TerminateOnNaN`.",
    OUTSIDE: "Give the method the `mean` and `std` that they were normalized with, or scale them.",
    LABEL_RANGE: "Renumber the classes, or give the heads more `units`.",
}
"""What a check inside a traced step said, and the way out."""


def _symbolic(spec: Any) -> Any:
    """Give a symbolic tensor of a spec, with an open batch axis."""
    shape = (None, *spec.shape[1:]) if len(spec.shape) else ()
    return keras.KerasTensor(shape, keras.backend.standardize_dtype(spec.dtype.name))


def _symbolic_features(step: StageStep, shape: Shape) -> Any:
    first = step.stage.blocks[0]
    if passes_several(first):
        return keras.tree.map_structure(
            lambda one: keras.KerasTensor(one.shape, one.dtype), first.given
        )
    return keras.KerasTensor(shape, first.compute_dtype)


class CompiledSteps:
    """The K stage steps of a compiled model; none before `compile`.

    Args:
        network: `StagedNetwork`, or `None` for no steps.
        optimizers: list of Keras optimizers, one per stage.
        hooks: what a subclass of the model overrides.
        loss: Keras loss of every head, or a list of one per head.
        micro_batches: int ≥ 1. Parts that every stage trains a batch in. Defaults to `1`.
        remat: bool or int ≥ 1, blocks between two tensors that are kept, as in `compile`.
            Defaults to `False`.
        **settings: `loss_weights`, `metrics`, `weighted_metrics`, as in `compile`.
    """

    def __init__(
        self,
        network: StagedNetwork | None = None,
        optimizers: Sequence[Any] = (),
        hooks: SubclassHooks | None = None,
        loss: Any = None,
        micro_batches: int = 1,
        remat: bool | int = False,
        **settings: Any,
    ) -> None:
        self.steps: list[StageStep] = []
        self.stored: StoredStep | None = None
        self.is_delayed = False
        # What labels must be like is the same for all heads: the last one's loss tells.
        self.loss = loss if network is None else losses_of(loss, network.num_stages)[-1]
        self.compiled_with: dict[str, Any] = {}
        if network is None:
            return
        length, method = segment_length(remat), network.method
        self.is_delayed = isinstance(method, DelayedMethod) and network.num_stages > 1
        if self.is_delayed and any(map(passes_several, network.blocks)):
            raise ValueError(
                f"{type(method).__name__} sends gradients back over cuts that one tensor crosses. "
                "Received: a model where several tensors come in or cross. Cut it elsewhere, or "
                "train it by a local method, as 'trgl'."
            )
        remat_by = None if length is None else Remat(length)
        if remat_by is not None:
            sizes = [len(remat_by.pieces(stage.blocks)) for stage in network.stages]
            joins = self.is_delayed and not getattr(method, "replays", False)
            tell_of_no_use(remat_by.length, [sum(sizes)] if joins else sizes)
        kind = LinkedStep if self.is_delayed else StageStep
        own = exit_settings([part.predicts for part in network.parts], loss=loss, **settings)
        placement = network.placement
        for k, (part, optimizer) in enumerate(zip(network.parts, optimizers, strict=True)):
            with placement.on(k):
                exit_model = Exit(name=f"exit_{k + 1}")
                # Keras's own reading of losses, metrics and weights, for one output each.
                exit_model.compile(optimizer=None, jit_compile=False, **own(k))
                device, told = placement.devices[k], hooks or SubclassHooks()
                self.steps.append(
                    kind(
                        *(k + 1, part, exit_model, optimizer, method, told, device),
                        micro_batches=micro_batches,
                        remat=remat_by,
                    )
                )

    def trainable_variables(self, k: int) -> list[Any]:
        """Give what stage k, counted from 0, trains."""
        return self.steps[k].trainable_variables

    @property
    def metrics(self) -> list[Any]:
        """Every stage's trackers and metrics."""
        return [metric for step in self.steps for metric in step.metrics]

    def results(self, training: bool, plan: Sequence[int], speaker: StageStep) -> dict[str, Any]:
        """Give the results of the stage that speaks, then every depth's as `stage_k_…`.

        Args:
            training: bool. Whether these are results of training, which have an objective.
            plan: positions of the stages that stepped. The others' results are NaN.
            speaker: the step whose results have no prefix.
        """
        results: dict[str, Any] = {}
        if speaker.part.predicts:
            results.update(speaker.exit.get_metrics_result())
        elif training:
            # A stage in training by itself, without a head: what it minimises.
            results["loss"] = speaker.objective_tracker.result()
        for k, step in enumerate(self.steps):
            for name, value in step.results(training, idle=k not in plan).items():
                results[f"stage_{step.depth}_{name}"] = value
        return results

    @property
    def needs_data(self) -> bool:
        """Whether the network's data go with the features."""
        return any(step.method.needs_data or step.hooks.needs_data for step in self.steps)

    @property
    def seeks_loss_names(self) -> bool:
        """Whether a batch's shapes must be known to learn what the method logs."""
        return any(step.method.loss_names is None for step in self.steps)

    @property
    def has_class_indices(self) -> bool:
        """Whether the loss takes labels as class indices."""
        return bool(loss_name(self.loss) == "sparse_categorical_crossentropy")

    def set_raise_on_nan(self, on: bool) -> bool:
        """Let a loss that is not finite raise inside its step, or not; tell if that is new."""
        changed = any(step.raise_on_nan != on for step in self.steps)
        for step in self.steps if changed else []:
            # The check is part of the trace.
            step.raise_on_nan = on
            step.retrace()
        return changed

    def set_multiplier(self, schemes: Sequence[MultiplierScheme | None]) -> bool:
        """Let multipliers move inside the steps, or not; tell if that is new.

        Args:
            schemes: one per stage, or none for none.
        """
        wanted = [
            scheme if step.regularizer is not None else None
            for step, scheme in zip(self.steps, schemes or [None] * len(self.steps), strict=True)
        ]
        changed = [
            step for step, one in zip(self.steps, wanted, strict=True) if step.multiplier != one
        ]
        for step, one in zip(self.steps, wanted, strict=True):
            step.multiplier = one
        for step in changed:
            step.retrace()
        return bool(changed)

    def start_multipliers(self, plan: Sequence[int], initial: float | None) -> None:
        """Start the multipliers of stages anew, where they move."""
        for k in plan:
            if self.steps[k].multiplier is not None:
                self.steps[k].regularizer.start_multiplier(initial)

    def place(self, plan: Sequence[int], idle_device: str, optimizers: StageOptimizers) -> bool:
        """Move stages that step to this device, and the others to theirs; tell if any moved.

        Args:
            plan: positions of the stages that step.
            idle_device: str. Device of the others.
            optimizers: what the stages' optimizers belong to.

        Raises:
            ValueError: there is no such device.
        """
        homes = {True: current_device(), False: device_name(idle_device)}
        moved = []
        # What leaves goes first: both need not be there at once.
        for k in sorted(range(len(self.steps)), key=lambda k: k in plan):
            step, home = self.steps[k], homes[k in plan]
            if move_variables(step.part.variables, home):
                with tf.device(home):
                    optimizers.follow(k)
                step.retrace()
                moved.append(step)
        return bool(moved)

    def settle(self, placement: Placement) -> None:
        """Move what was made before the stages' devices were known."""
        for k, step in enumerate(self.steps):
            step.device = placement.devices[k]
            held = [variable for metric in step.metrics for variable in metric.variables]
            own = [] if step.optimizer is None else step.optimizer.variables
            placement.move(k, [*held, *own])

    def use_stores(
        self,
        regime: Any,
        spec: Any,
        seed: int,
        batch_size: int | None,
        goes_on: bool,
        skews: bool,
        take: Callable[[Any], Any],
    ) -> bool:
        """Put stores between the stages, if the regime or skewed stages need them.

        Args:
            regime: the model's regime.
            skews: bool. Whether stages of the parallel regime work on different batches.
            spec: structure of `tf.TensorSpec`, a batch.
            seed: int ≥ 0. Seed of the picks.
            batch_size: int, or `None` if it is not known.
            goes_on: bool. Whether what is stored is kept, where it fits.
            take: function that gives `x` of a batch as the first stage takes it.

        Returns:
            bool: whether functions that were traced before are of no use any more.

        Raises:
            ValueError: a batch's shapes are not known, or there are several replicas.
        """
        is_buffered, before = isinstance(regime, Buffered), self.stored
        skews = skews and isinstance(regime, Parallel)
        if not (is_buffered or skews or self.is_delayed):
            self.stored = None
            return before is not None
        if self.is_delayed and tf.distribute.has_strategy() and self.steps[0].device is None:
            raise ValueError(
                "Late gradients are those of one replica. Received: method="
                f"{self.steps[0].method!r} with a strategy of replicas. Make the model outside its "
                "scope, or use `EndToEnd()`."
            )
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise ValueError(
                "`Buffered` trains on one replica. Received: a strategy with several. Use "
                "`Parallel()` with replicas."
            )
        if spec is None:
            raise ValueError(
                "A batch's shapes must be known before the first one comes, as the batches "
                "between stages are stored. Received: data that do not tell. Pass arrays, a "
                "`tf.data.Dataset`, a `PyDataset` or a generator."
            )
        if not self.is_delayed and any(step.hooks.overrides_metrics for step in self.steps):
            raise ValueError(
                "An override of `compute_metrics` speaks of one batch, and stages with stores "
                "between them work on several. Received: a subclass with one. Use `Parallel()` on "
                "one device, or `compile(metrics=…)`, which every stage has."
            )
        stored = before
        if stored is None or stored.regime is not regime:
            if self.is_delayed:
                stored = delayed_step(self.steps, regime)
            elif is_buffered and regime.order != "skewed":
                stored = BufferedStep(self.steps, regime, seed)
            else:
                stored = SkewedStep(self.steps, regime, measures_staleness=is_buffered)
        self.stored = stored
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(spec)
        if self.is_delayed:
            # Data wait as the first stage takes them.
            traced = tf.function(take, autograph=False).get_concrete_function(
                tf.nest.map_structure(open_spec, x)
            )
            x = open_spec(traced.structured_outputs)
        is_new = stored.prepare((x, y, sample_weight, x if self.needs_data else None))
        # Batches of another size would be trained on as if they were of this run.
        if not goes_on or batch_size != stored.batch_size:
            stored.clear()
        stored.batch_size = batch_size
        return is_new or stored is not before

    def make_metrics(self, spec: Any, predictions: Sequence[Shape]) -> None:
        """Make the metrics' variables from shapes; made inside the step, it is traced twice.

        Args:
            spec: structure of `tf.TensorSpec`, a batch.
            predictions: shapes of the heads' outputs, batch axis included.
        """
        one = keras.tree.map_structure(
            lambda leaf: tf.zeros([size or 1 for size in leaf.shape], leaf.dtype), spec
        )
        _, y, sample_weight = keras.utils.unpack_x_y_sample_weight(one)
        for step, shape in zip(self.steps, predictions, strict=True):
            if not step.part.predicts:
                continue
            with step.on_device():
                prediction = tf.zeros([size or 1 for size in shape], step.head.compute_dtype)
                step.exit.compute_metrics(None, y, prediction, sample_weight)
                step.exit.reset_metrics()

    def find_loss_names(self, spec: Any) -> None:
        """Learn what the method logs beside the task loss and the energy.

        Args:
            spec: structure of `tf.TensorSpec`, a batch, or `None` if it is not known.

        Raises:
            ValueError: a term has the name of a metric.
        """
        x = y = sample_weight = None
        if spec is not None:
            symbolic = keras.tree.map_structure(_symbolic, spec)
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(symbolic)
        for step in self.steps:
            if step.method.loss_names is not None or x is not None:
                place: Any = step.part.place
                inputs = x if step.depth == 1 else _symbolic_features(step, place.input_shape)
                step.find_loss_names((inputs, y, sample_weight, x if self.needs_data else None))
            metrics: list[str] = []
            with contextlib.suppress(ValueError):
                # A stage that is idle has made none yet.
                metrics = list(step.exit.get_metrics_result())
            check_loss_names(step.method, step.depth, step.loss_trackers, metrics)


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turn the checks that fail inside a traced step into errors that say the way out."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        for mark, way_out in WAYS_OUT.items():
            if mark in error.message:
                raise ValueError(f"{_said(error.message, mark)}. {way_out}") from error
        raise


def _said(message: str, mark: str) -> str:
    """Give a check's own words and values out of TensorFlow's message."""
    _, eager, data = message.partition("Summarized data: ")
    if eager:
        parts = [
            line.removeprefix("b") if line[1:2] in "'\"" else line for line in data.split("\n")
        ]
        return " ".join(part.strip("'\"") for part in parts if part)
    line = next(line for line in message.splitlines() if mark in line)
    # A graph prints them as `[words Received:] [value]`.
    said = line.split("failed: [", 1)[-1]
    return said.replace("] [", " ").replace("]", "").replace("'", "").strip("b[ ")
