"""A batch in parts, one after the other, and what they add up to.

A part runs as a function that is not inlined, in a loop of one iteration at a time: its activations
are gone when the next one begins. What parts give is weighed so that the sums are those of the
batch: the task loss as its reduction has it, all else by examples.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.checks import check_integer
from keras_trgl.feeding.batch_forms import filled, leaves_of
from keras_trgl.layers.inner import inner_layers
from keras_trgl.layers.masks import makes_masks, mask_of
from keras_trgl.network.passing import apart, main, together
from keras_trgl.network.placement import Placement
from keras_trgl.network.staged_network import StagePart
from keras_trgl.training.labels import ignored_class
from keras_trgl.training.shared_function import SharedFunction
from keras_trgl.training.stage_objective import Batch, StageObjective, Terms, rows
from keras_trgl.types import Tensor

LossFactor = Callable[[Tensor, Tensor], Tensor]
"""Gives the task loss of a part from (prediction, loss), so that shares by examples add up."""


@dataclasses.dataclass(frozen=True)
class Pass:
    """What a forward pass over a batch gave.

    Attributes:
        features: tensor, the stage's output, or `None` where nobody asks for it.
        prediction: tensor, the head's output, or `None`.
        task: scalar tensor, this replica's share of the task loss.
        energy: scalar tensor, plain energy, or `None`.
        terms: the objective.
        gradients: function that gives the objective's gradients, one per trained variable.
    """

    features: Any
    prediction: Any
    task: Tensor
    energy: Tensor | None
    terms: Terms
    gradients: Callable[[], list[Any]]


class MicroBatches:
    """Runs a stage's batch in parts.

    Args:
        count: int ≥ 2. Parts of a batch; of one with fewer examples, those.
        part: `StagePart`, T_k, F_k and the method's layers.
        objective: the stage's objective.
        loss: the loss as `compile` got it, or `None` where a subclass has its own.
        run: function of (batch, share, loss factor, multiplier or `None`) that gives a `Pass`
            whose gradients are those of the share.
    """

    def __init__(
        self,
        count: int,
        part: StagePart,
        objective: StageObjective,
        loss: Any,
        run: Callable[..., Pass],
    ) -> None:
        self.count = count
        self._stage_part = part
        self._objective = objective
        self._loss = loss[0] if isinstance(loss, (list, tuple)) else loss
        self._run = run
        kinds = [(features, said) for features in (False, True) for said in (False, True)]
        self._trained = {keeps: _Part(functools.partial(self._train, keeps)) for keeps in kinds}
        self._counted, self._looked = _Part(self._count), _Part(self._look)
        self._passed = _Part(self._pass_on)

    def __call__(self, batch: Batch, keeps_features: bool, keeps_prediction: bool) -> Pass:
        """Give what the batch gives, from its parts.

        Args:
            batch: as in `StageStep.train`.
            keeps_features: bool. Whether the features of all parts are asked for, in order.
            keeps_prediction: bool. Whether the predictions are.
        """
        inputs, *rest = batch
        given = (apart(inputs), *rest)
        divisor = self._divisor_of_all(given)
        settled = self._settled(given, divisor)
        train = self._trained[keeps_features, keeps_prediction]
        found, (kept, slices) = self._in_turn(train, divisor, settled, given)
        moves: list[Any] = []
        if settled is not None:
            moves = self._objective.moves(*settled, found["task"])
        features, prediction = kept["features"], kept["prediction"]
        return Pass(
            None if features is None else together(features),
            None if prediction is None else together(prediction),
            found["task"],
            found["energy"],
            Terms(found["objective"], found["further"], moves),
            # Of the inputs there is a row per example, and no sum.
            lambda: [*self._gradients(found["gradients"], slices), *kept["back"]],
        )

    def features(self, inputs: Tensor) -> Tensor:
        """Give the features in training mode, part by part as the batch is trained."""
        (_, (kept, _)) = self._in_turn(self._passed, (apart(inputs), None, None, None))
        return together(kept)

    def _pass_on(self, start: Any, stop: Any, given: Any) -> tuple[Any, Any]:
        batch, _, _ = self._taken(start, stop, None, given)
        return [], (apart(self._stage_part.stage(batch[0], training=True)), [])

    def _gradients(self, dense: Any, slices: Any) -> list[Any]:
        """Put gradients of both kinds into one list, one per trained variable."""
        return [
            g if one is None else tf.IndexedSlices(*one, dense_shape=tf.constant(list(v.shape)))
            for g, one, v in zip(dense, slices, self._stage_part.trainable_variables, strict=False)
        ]

    def _in_turn(self, part: "_Part", *given: Any) -> tuple[Any, Any]:
        """Run a function of (start, stop, …) on every part, and give sums, and outputs as one."""
        total = rows(given[-1][0][0])
        size = (total + self.count - 1) // self.count
        if tf.executing_eagerly():
            starts = range(0, int(total), int(size))
            found = [part.function(s, min(s + size, total), *given) for s in starts]
            sums, kept = zip(*found, strict=True)
            join = lambda *parts: None if parts[0] is None else tf.concat(parts, 0)  # noqa: E731
            return _added(*sums), tf.nest.map_structure(join, *kept)
        sums, kept = part.shared.outputs(tf.constant(0), total, *given)
        # Made from the batch: TensorFlow would keep constants of the gradients' size for ever.
        zero = tf.minimum(total, 0)
        zeros = [tf.fill(one.shape, tf.cast(zero, one.dtype)) for one in leaves_of(sums)]
        rows_of = [
            _Rows(one, total, placed)
            for placed, side in ((True, kept[0]), (False, kept[1]))
            for one in leaves_of(side)
        ]

        def body(place: Any, start: Any, sums: Any, states: Any) -> Any:
            stop = tf.minimum(start + size, total)
            more, left = part.shared(start, stop, *given)
            sums = [one + two for one, two in zip(sums, leaves_of(more), strict=True)]
            states = [
                one.put(state, place, start, stop, left)
                for one, state, left in zip(rows_of, states, leaves_of(left), strict=True)
            ]
            return place + 1, stop, sums, states

        _, _, zeros, states = tf.while_loop(
            lambda place, start, *_: start < total,
            body,
            [tf.constant(0), tf.constant(0), zeros, [one.begin() for one in rows_of]],
            parallel_iterations=1,
        )
        whole = [one.end(state) for one, state in zip(rows_of, states, strict=True)]
        return filled(sums, zeros), filled(kept, whole)

    def _train(
        self,
        keeps: tuple[bool, bool],
        start: Any,
        stop: Any,
        divisor: Any,
        settled: Any,
        given: Any,
    ) -> tuple[Any, Any]:
        """Give what a part adds to the batch's sums, and its outputs."""
        batch, share, factor = self._taken(start, stop, divisor, given)
        one = self._run(batch, share, factor, None if settled is None else settled[1])
        weighed, gradients = functools.partial(_weighed, share), one.gradients()
        sums = {
            "task": weighed(one.task),
            "energy": weighed(one.energy),
            "objective": weighed(one.terms.objective),
            "further": {name: weighed(loss) for name, loss in one.terms.further.items()},
            "gradients": [
                None
                if g is None or isinstance(g, tf.IndexedSlices)
                else tf.ensure_shape(g, v.shape)
                for g, v in zip(gradients, self._stage_part.trainable_variables, strict=False)
            ],
        }
        outputs = [one.features if keeps[0] else None, one.prediction if keeps[1] else None]
        sides = [None if x is None else apart(x) for x in outputs]
        kept: dict[str, Any] = dict(zip(("features", "prediction"), sides, strict=True))
        kept["back"] = gradients[len(self._stage_part.trainable_variables) :]
        # As the whole batch has them, not as one dense sum: optimizers treat the two differently.
        slices = [
            (g.values, g.indices) if isinstance(g, tf.IndexedSlices) else None for g in gradients
        ]
        return sums, (kept, slices)

    def _look(self, start: Any, stop: Any, divisor: Any, given: Any) -> tuple[Any, Any]:
        """Give a part's share of the task loss, in training mode, and learn nothing."""
        batch, share, factor = self._taken(start, stop, divisor, given)
        return [_weighed(share, self._run(batch, share, factor, None).task)], ([], [])

    def _count(self, start: Any, stop: Any, given: Any) -> tuple[Any, Any]:
        """Give what a part adds to what the loss is divided by, which a mask may decide."""
        (inputs, y, sample_weight, _), _, _ = self._taken(start, stop, None, given)
        # In inference mode, for the mask alone: all else falls out of the traced function.
        prediction = self._stage_part.head(main(self._stage_part.stage(inputs, training=False)))
        return [self._divisor(inputs, y, sample_weight, mask_of(prediction))], ([], [])

    def _taken(self, start: Any, stop: Any, divisor: Any, given: Any) -> Any:
        """Give a part of the batch, its share of the examples, and its loss factor."""
        total = rows(given[0][0])
        sides, *rest = tf.nest.map_structure(
            lambda leaf: leaf if leaf is None or not leaf.shape.rank else leaf[start:stop], given
        )
        batch = (together(sides), *rest)
        precise = tf.as_dtype(keras.config.floatx())
        share = tf.cast(stop - start, precise) / tf.cast(total, precise)

        def factor(prediction: Tensor, task: Tensor) -> Tensor:
            if divisor is None:
                return task
            inputs, y, sample_weight, _ = batch
            own = self._divisor(inputs, y, sample_weight, mask_of(prediction))
            return task * tf.cast(tf.math.divide_no_nan(own, divisor) / share, task.dtype)

        return batch, share, factor

    def _divisor_of_all(self, given: Any) -> Any:
        """Give what the loss of the whole batch is divided by; `None` for its examples."""
        sides, y, sample_weight, _ = given
        if self._loss is None or not self._stage_part.predicts:
            return None
        if self._reduction == "sum":
            return tf.constant(1.0, keras.config.floatx())
        if self._may_mask(sides):
            ((divisor,), _) = self._in_turn(self._counted, given)
            return divisor
        weighs = self._reduction == "mean_with_sample_weight" and sample_weight is not None
        if not weighs and ignored_class(self._loss) is None:
            return None
        return self._divisor(sides[0], y, sample_weight, None)

    def _divisor(self, inputs: Any, y: Any, sample_weight: Any, mask: Any) -> Tensor:
        """Give what Keras divides the sum of a part's losses by."""
        precise = keras.config.floatx()
        if self._reduction == "sum":
            return tf.constant(1.0, precise)
        ignored, valid = ignored_class(self._loss), mask
        if ignored is not None:
            own = tf.not_equal(y, tf.cast(ignored, y.dtype))
            valid = own if mask is None else tf.reshape(own, tf.shape(mask)) & mask
        weighs = self._reduction == "mean_with_sample_weight" and sample_weight is not None
        if not weighs:
            return tf.cast(rows(inputs), precise) if valid is None else _sum(valid)
        if valid is None:
            return _sum(sample_weight)
        weight = tf.cast(sample_weight, precise)
        missing = len(valid.shape) - len(weight.shape)
        weight = tf.reshape(weight, [*tf.unstack(tf.shape(weight)), *[1] * missing])
        return _sum(tf.cast(valid, precise) * weight)

    @property
    def _reduction(self) -> str:
        return str(getattr(self._loss, "reduction", "sum_over_batch_size"))

    def _may_mask(self, sides: Any) -> bool:
        """Whether a prediction may have a mask."""
        part = self._stage_part
        layers = [part.head, *inner_layers(part.stage), *inner_layers(part.head)]
        return bool(sides[1]) or makes_masks(layers)

    def _settled(self, given: Any, divisor: Any) -> tuple[Tensor, Tensor] | None:
        """Give the batch's number and the multiplier that it trains with, where one moves.

        Where it moves at this very batch, the whole batch's loss must be known before the first
        part's gradient is: a forward pass more, whose batch statistics and draws are put back.
        """
        regularizer, scheme = self._stage_part.stage.regularizer, self._objective.multiplier
        if scheme is None or regularizer is None:
            return None
        if self._stage_part.stage.energy_reduction is None:
            return None
        states = [v for v in self._stage_part.variables if not v.trainable]
        mine = {id(v) for v in regularizer.variables}
        states = [v for v in states if id(v) not in mine]
        precise = keras.config.floatx()

        def loss() -> Tensor:
            before = [tf.identity(v.value) for v in states]
            ((task,), _) = self._in_turn(self._looked, divisor, given)
            with tf.control_dependencies([] if tf.executing_eagerly() else [task]):
                for variable, value in zip(states, before, strict=True):
                    variable.assign(value)
                return tf.cast(tf.identity(task), precise)

        number = tf.convert_to_tensor(regularizer.batches) + 1
        due = tf.equal(number % tf.cast(scheme.s, number.dtype), 0)
        found = tf.cond(due, loss, lambda: tf.zeros([], precise))
        settled: tuple[Tensor, Tensor] = regularizer.next_multiplier(found, scheme.h, scheme.s)
        return settled


def check_parts(micro_batches: Any, jit_compile: Any, placement: Placement) -> None:
    """Raise where a batch cannot be trained in so many parts.

    Args:
        micro_batches: what came as such.
        jit_compile: as in `compile`.
        placement: where the stages live.

    Raises:
        TypeError: `micro_batches` is no integer.
        ValueError: it is below 1, or above 1 with replicas or XLA.
    """
    check_integer("micro_batches", micro_batches, 1, "1 trains on the batch as it is.")
    if micro_batches > 1 and jit_compile is True:
        raise ValueError(
            "Parts are cut from batches of any size, and XLA takes fixed shapes. Received: "
            f"micro_batches={micro_batches}, jit_compile=True. Leave `jit_compile` out."
        )
    if micro_batches > 1 and tf.distribute.has_strategy() and placement.strategy is None:
        raise ValueError(
            "A replica's share of a batch is trained whole. Received: "
            f"micro_batches={micro_batches} with a strategy of replicas. Take smaller batches and "
            "`gradient_accumulation_steps` of the optimizer, or more replicas."
        )


class _Part:
    """A function of one part, as it is and as it is traced."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.shared = SharedFunction(function)


class _Rows:
    """Where the parts' outputs become one tensor.

    One row per example is put in its place, which takes the tensor once; rows of any other number
    are joined in the end, which takes it twice.

    Args:
        spec: what a part gives: its type, and its shape as far as it is known.
        total: scalar tensor, int32, examples of the batch.
        one_each: bool. Whether there is a row per example.
    """

    def __init__(self, spec: Any, total: Tensor, one_each: bool) -> None:
        self._spec, self._total = spec, total
        self._is_placed = one_each and spec.shape[1:].is_fully_defined()

    def begin(self) -> Any:
        """Give the state before the first part."""
        if self._is_placed:
            return tf.zeros([self._total, *self._spec.shape[1:]], self._spec.dtype)
        shape = self._spec.shape
        return tf.TensorArray(self._spec.dtype, 0, True, infer_shape=False, element_shape=shape)

    def put(self, state: Any, place: Any, start: Any, stop: Any, left: Tensor) -> Any:
        """Give the state with what one part left."""
        if self._is_placed:
            return tf.tensor_scatter_nd_update(state, tf.range(start, stop)[:, None], left)
        return state.write(place, left)

    def end(self, state: Any) -> Tensor:
        """Give the rows of all parts."""
        return state if self._is_placed else state.concat()


def _weighed(share: Tensor, value: Any) -> Any:
    """Give what a part's mean adds to the batch's."""
    return None if value is None else value * tf.cast(share, value.dtype)


def _sum(values: Any) -> Tensor:
    return tf.reduce_sum(tf.cast(values, keras.config.floatx()))


def _added(first: Any, *more: Any) -> Any:
    sums = leaves_of(first)
    for one in more:
        sums = [a + b for a, b in zip(sums, leaves_of(one), strict=True)]
    return filled(first, sums)
