"""What a stage minimises: the method's terms, and the losses that layers added."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.methods.method import LocalMethod, StageBatch
from keras_trgl.network.passing import main
from keras_trgl.network.staged_network import StagePart
from keras_trgl.types import Tensor

RESERVED = ("loss", "objective", "multiplier", "tau", "staleness")
"""Names of logs that no term of a method may take."""

Batch = tuple[Any, Any, Any, Any]
"""Inputs of a stage, targets, sample weights or `None`, the network's data or `None`."""


@dataclasses.dataclass(frozen=True)
class MultiplierScheme:
    """How the weight of the energy moves inside the step.

    Attributes:
        h: float. Step of the multiplier.
        s: int. It moves at every s-th batch.
        scaling: `"energy"`: L + E/λ, or `"loss"`: λL + E.
        record: function of (batch counted from 1, loss, λ used), or `None`.
    """

    h: float
    s: int
    scaling: str = "energy"
    record: Any = None


@dataclasses.dataclass(frozen=True)
class Terms:
    """One batch's objective.

    Attributes:
        objective: scalar tensor, this replica's share of the sum.
        further: dict of scalar tensors, the terms that are logged by their names.
        moves: list of functions to call once the loss is known to be finite.
    """

    objective: Tensor
    further: dict[str, Tensor]
    moves: list[Any]


class StageObjective:
    """The objective of stage k.

    Args:
        part: `StagePart`, T_k, F_k and the method's layers.
        method: what gives the terms.

    Attributes:
        multiplier: `MultiplierScheme` or `None`.
    """

    def __init__(self, part: StagePart, method: LocalMethod) -> None:
        self.part = part
        self.method = method
        self.multiplier: MultiplierScheme | None = None

    def terms(
        self,
        batch: Batch,
        features: Tensor,
        prediction: Tensor,
        task: Tensor,
        energy: Tensor | None,
        multiplier: Tensor | None = None,
    ) -> Terms:
        """Give the objective of one batch; called inside the tape.

        Args:
            batch: what the stage got.
            features: tensor, the stage's output.
            prediction: tensor, the head's output.
            task: scalar tensor, this replica's share of the task loss.
            energy: scalar tensor, plain energy of this replica's batch, or `None`.
            multiplier: scalar tensor, λ where the whole batch settled it and this is a part of
                it, or `None`. Defaults to `None`.

        Raises:
            ValueError: the method gives something else than scalars, or takes a reserved name.
        """
        inputs, labels, sample_weight, data = batch
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        mean = task * replicas if replicas > 1 else task
        layer_losses, mean, moves = self._weighted(inputs, task, mean, energy, multiplier)
        place: Any = self.part.place
        losses = self.method.stage_losses(
            StageBatch(
                place,
                self.part.layers,
                inputs=main(inputs),
                features=main(features),
                prediction=prediction,
                labels=labels,
                sample_weight=sample_weight,
                task_loss=mean,
                layer_losses=layer_losses,
                sent_data=data,
                found_energy=self._recorded(energy, task),
            )
        )
        losses = self._checked(losses, task)
        total = _sum(losses.values(), task)
        # After the method's own, whose losses nothing that a layer adds may reorder.
        more: Any = [*layer_losses.items(), *self._net_losses(task)]
        for name, loss in more if self.method.adds_layer_losses else ():
            if name != "energy":
                total = total + loss
        further = {name: one for name, one in losses.items() if self._is_further(name)}
        return Terms(total / replicas if replicas > 1 else total, further, moves)

    def _is_further(self, name: str) -> bool:
        has_energy = self.part.stage.energy_reduction is not None
        return name != "task" and not (name == "energy" and has_energy)

    def _recorded(self, energy: Tensor | None, task: Tensor) -> Tensor | None:
        """Give the energy that a method may see: zero where it asked and there are no blocks."""
        if energy is not None:
            return _scalar(energy, task)
        return tf.zeros_like(task) if self.method.needs_energy is not None else None

    def _weighted(
        self,
        inputs: Any,
        task: Tensor,
        mean: Tensor,
        energy: Tensor | None,
        settled: Tensor | None,
    ) -> tuple[dict[str, Tensor], Tensor, list[Any]]:
        """Give the layers' losses by name, the task loss, and what is to move afterwards.

        The multiplier scheme changes the weights of the two; methods do not see it.
        """
        regularizer, scheme = self.part.stage.regularizer, self.multiplier
        mine = set() if regularizer is None else {id(loss) for loss in regularizer.losses}
        own = [*self.part.stage.losses, *self.part.head.losses]
        named: dict[str, Tensor] = {}
        for loss in own:
            is_energy = id(loss) in mine
            named["energy" if is_energy else f"loss_{len(named) + 1}"] = _scalar(loss, task)
        if scheme is None or regularizer is None or energy is None:
            return named, mean, []
        # The energy's loss was added with the multiplier of the batch before.
        moves, multiplier = [], settled
        if settled is None:
            loss = _global_mean(inputs, task)
            count, multiplier = regularizer.next_multiplier(loss, scheme.h, scheme.s)
            moves = self.moves(count, multiplier, loss)
        used, plain = tf.cast(multiplier, task.dtype), _scalar(energy, task)
        if scheme.scaling == "energy":
            named["energy"] = plain / used
        else:
            named["energy"], mean = plain, used * mean
        return named, mean, moves

    def moves(self, count: Tensor, multiplier: Tensor, loss: Tensor) -> list[Any]:
        """Give the functions that move the multiplier, and record it, once a step is sound.

        Args:
            count: scalar tensor, int64, the batch's number from 1.
            multiplier: scalar tensor, λ of this batch.
            loss: scalar tensor, task loss of the whole batch.
        """
        regularizer, scheme = self.part.stage.regularizer, self.multiplier
        moves: list[Any] = [lambda: regularizer.move_multiplier(count, multiplier)]
        if scheme is not None and scheme.record is not None and _is_first_replica():
            record = scheme.record
            moves.append(lambda: tf.numpy_function(record, [count, loss, multiplier], []))
        return moves

    def _net_losses(self, task: Tensor) -> list[tuple[str, Tensor]]:
        """Give what the method's own nets added: read last, as the method has called them now."""
        nets = self.part.layers.items()
        return [(name, _scalar(loss, task)) for name, net in nets for loss in net.losses]

    def _checked(self, losses: Any, task: Tensor) -> dict[str, Tensor]:
        """Give the method's terms in the task loss's type.

        Raises:
            ValueError: they are no dict of scalars, or a name is reserved.
        """
        place: Any = self.part.place
        who = f"`stage_losses` of {type(self.method).__name__}, stage {place.depth},"
        if not isinstance(losses, Mapping) or not losses:
            raise ValueError(
                f"{who} must give a dict of name to scalar. Received: {losses!r}. "
                'For the task loss alone give `{"task": step.task_loss}`.'
            )
        taken = [name for name in losses if name in RESERVED or not isinstance(name, str)]
        if taken:
            raise ValueError(
                f"{who} must leave the names {', '.join(RESERVED)} to the logs. "
                f"Received: {taken[0]!r}. Give the term another name."
            )
        scalars = {}
        for name, loss in losses.items():
            shape = getattr(loss, "shape", () if isinstance(loss, (int, float)) else None)
            if shape is None or tuple(shape) != ():
                raise ValueError(
                    f"{who} must give scalars. Received: {name!r} of shape {shape}, "
                    f"{type(loss).__name__}. Take the mean over the batch, as by `keras.ops.mean`."
                )
            scalars[name] = tf.cast(loss, task.dtype)
        return scalars


def check_loss_names(method: LocalMethod, depth: int, names: Any, metrics: Any) -> None:
    """Raise if a method's term has the name of a metric, whose log it would hide.

    Raises:
        ValueError: it has.
    """
    taken = sorted(set(names) & set(metrics))
    if taken:
        raise ValueError(
            f"`stage_losses` of {type(method).__name__}, stage {depth}, must leave the names of "
            f"metrics to them. Received: {', '.join(taken)}. Rename the term or the metric."
        )


def _sum(losses: Any, task: Tensor) -> Tensor:
    first, *more = losses
    for loss in more:
        first = first + loss
    return first if isinstance(first, tf.Tensor) else tf.cast(first, task.dtype)


def _scalar(loss: Tensor, task: Tensor) -> Tensor:
    return tf.cast(tf.reduce_sum(loss), task.dtype)


def _is_first_replica() -> bool:
    """Tell whether this is the replica that speaks for all."""
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    return bool(tf.get_static_value(tf.convert_to_tensor(replica)) == 0)


def _global_mean(inputs: Any, task: Tensor) -> Tensor:
    """Give the task loss as the mean over the global batch, without a gradient."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas == 1:
        return tf.stop_gradient(task)
    count = tf.cast(rows(inputs), task.dtype)
    context = tf.distribute.get_replica_context()
    total, count = context.all_reduce(
        tf.distribute.ReduceOp.SUM, [tf.stop_gradient(task) * replicas * count, count]
    )
    return total / count


def rows(inputs: Any) -> Tensor:
    """Give the number of examples in a batch, an int32 scalar."""
    return tf.shape(keras.tree.flatten(inputs)[0])[0]
