"""The relaxed search: gradients of a held-out loss through steps of training.

It needs gradients of gradients, which a stage's own step does not give, so it has tapes of its own.
Each unit's backward pass is written out, from the gradient at its output to that at its input: the
weights of cuts stand between them as plain factors, so the outer tape sees values and gradients as
they are. One surrogate loss would not do: its factors would scale the derivative of the values too.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_trgl.datasets.batch_stream import BatchStream
from keras_trgl.greedy_model import GreedyModel
from keras_trgl.progress import Progress
from keras_trgl.search.grouping import copies

BETAS = (0.5, 0.999)
DECAY = 1e-6
"""Of α and β, in Adam."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """What the search may take; see `Relaxed`."""

    outer_steps: int
    inner_steps: int
    pretrain_steps: int
    snapshots: int
    batch_size: int
    learning_rate: float
    search_rate: float


class Choices(keras.layers.Layer):
    """All heads of a boundary side by side: `(batch, heads * units)`.

    Args:
        heads: list of unbuilt heads.
        **kwargs: as for any Keras layer.
    """

    def __init__(self, heads: Sequence[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = list(heads)

    def build(self, input_shape: Any) -> None:
        """Build every head for the same features."""
        for head in self.heads:
            head.build(input_shape)

    def call(self, features: Any, training: bool = False) -> Any:
        """Give the heads' outputs side by side."""
        made = [head(features, training=training) for head in self.heads]
        return keras.ops.concatenate(made, axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Give `(batch, heads * units)`."""
        shapes = [head.compute_output_shape(input_shape) for head in self.heads]
        return (input_shape[0], sum(shape[-1] for shape in shapes))


class RelaxedNetwork:
    """All units, all heads, and how a step changes their values; nothing is assigned.

    Args:
        blocks: list of unbuilt blocks, which are copied.
        head: the last head, which is copied.
        heads: heads to choose from at each boundary, which are copied.
        rate: float > 0, of SGD.
        shape: shape of an example.
        seed: int ≥ 0, of initial weights.
    """

    def __init__(
        self, blocks: Any, head: Any, heads: Any, rate: float, shape: Any, seed: int
    ) -> None:
        units = len(blocks)
        sides = [Choices(copies(heads, f"cut_{k}"), name=f"cut_{k}") for k in range(1, units)]
        # As a model of one block a stage it is built with weights that the seed gives.
        self.model = GreedyModel.from_blocks(
            copies(blocks, "unit"),
            [1] * units,
            [*sides, *copies([head], "last")],
            method="vangl",
            seed=seed,
        )
        self.model.build((None, *shape))
        self.rate, self.num_heads = rate, len(heads)
        parts = [*self.model.stages, *self.model.heads]
        self.trained = [list(part.trainable_variables) for part in parts]
        kept = [v for part in parts for v in part.non_trainable_variables]
        self.kept = list({id(v): v for v in kept}.values())
        self.step = tf.function(self.stepped)
        self.judge = tf.function(self.held_out_loss)

    def start(self) -> tuple[Any, Any]:
        """Give the values that the network begins with: of weights by part, and of the rest."""
        weights = [[tf.convert_to_tensor(v.value) for v in part] for part in self.trained]
        return weights, [tf.convert_to_tensor(v.value) for v in self.kept]

    def _scope(self, weights: Any, kept: Any) -> Any:
        pairs = [
            pair
            for variables, values in zip(self.trained, weights, strict=True)
            for pair in zip(variables, values, strict=True)
        ]
        return keras.StatelessScope(state_mapping=[*pairs, *zip(self.kept, kept, strict=True)])

    def _loss(self, k: int, features: Any, y: Any, heads: Any) -> Any:
        """Give the loss of the head, or of the mixture of heads, after unit k, from 0."""
        logits = self.model.heads[k](features, training=True)
        if k < len(self.model.stages) - 1:
            parts = tf.reshape(logits, (tf.shape(logits)[0], self.num_heads, -1))
            logits = tf.einsum("bhu,h->bu", parts, heads[k])
        found = keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)
        return tf.reduce_mean(found)

    def gradients(self, weights: Any, kept: Any, mixture: Any, x: Any, y: Any) -> tuple[Any, Any]:
        """Give the gradients of all parts on a batch, and the values that are no weights.

        Args:
            weights: values by part, units first.
            kept: values of what is not trained.
            mixture: pair: (keep, cut) of each boundary `(U − 1, 2)`, and weights of its heads.
            x: batch of data.
            y: batch of classes.
        """
        cuts, heads = mixture
        units = len(self.model.stages)
        passes, features = [], x
        with self._scope(weights, kept) as scope:
            for k in range(units):
                with tf.GradientTape() as through:
                    through.watch([features, *weights[k]])
                    after = self.model.stages[k](features, training=True)
                with tf.GradientTape() as aside:
                    aside.watch([after, *weights[units + k]])
                    loss = self._loss(k, after, y, heads)
                passes.append((through, features, after, aside, loss))
                features = after
            states = [scope.get_current_value(v) for v in self.kept]
        found: list[Any] = [None] * (2 * units)
        above = None
        for k in reversed(range(units)):
            through, before, after, aside, loss = passes[k]
            at_head, found[units + k] = aside.gradient(
                loss, (after, weights[units + k]), unconnected_gradients="zero"
            )
            down = at_head if above is None else cuts[k, 1] * at_head + cuts[k, 0] * above
            above, found[k] = through.gradient(
                after,
                (before, weights[k]),
                output_gradients=down,
                unconnected_gradients="zero",
            )
        rest = [
            value if state is None else tf.convert_to_tensor(state)
            for state, value in zip(states, kept, strict=True)
        ]
        return found, rest

    def stepped(self, weights: Any, kept: Any, mixture: Any, x: Any, y: Any) -> tuple[Any, Any]:
        """Give weights and the rest after an SGD step; arguments as for `gradients`."""
        found, rest = self.gradients(weights, kept, mixture, x, y)
        moved = [
            [value - self.rate * gradient for value, gradient in zip(*part, strict=True)]
            for part in zip(weights, found, strict=True)
        ]
        return moved, rest

    def held_out_loss(self, weights: Any, kept: Any, x: Any, y: Any) -> Any:
        """Give the loss of the last head, by statistics of the batch."""
        with self._scope(weights, kept):
            features = x
            for stage in self.model.stages:
                features = stage(features, training=True)
            return self._loss(len(self.model.stages) - 1, features, y, None)


def mixture_of(alpha: Any, beta: Any) -> tuple[Any, Any]:
    """Give the weights of keep and cut, and of heads."""
    return tf.nn.softmax(alpha), tf.nn.softmax(beta)


def search_relaxed(
    blocks: Any, head: Any, heads: Any, data: Any, budget: Budget, seed: int, progress: bool
) -> tuple[float, list[float], list[int]]:
    """Search, and give the last held-out loss, how strongly each boundary is cut, and its head.

    Args:
        blocks: list of unbuilt blocks.
        head: the last head.
        heads: heads to choose from.
        data: training examples and classes, held-out examples and classes.
        budget: `Budget`.
        seed: int ≥ 0.
        progress: whether it is shown.
    """
    x, y, held_x, held_y = data
    size = budget.batch_size
    training = iter(BatchStream(x, y, batch_size=size, seed=seed).from_step())
    judging = iter(BatchStream(held_x, held_y, batch_size=size, seed=seed + 1).from_step())
    network = RelaxedNetwork(blocks, head, heads, budget.learning_rate, x.shape[1:], seed)
    alpha = keras.Variable(np.zeros((len(blocks) - 1, 2)), dtype="float32")
    beta = keras.Variable(np.zeros((len(blocks) - 1, len(heads))), dtype="float32")
    adam = keras.optimizers.Adam(budget.search_rate, *BETAS)
    adam.build([alpha, beta])
    steps = budget.pretrain_steps + budget.outer_steps
    done = Progress(steps, int(progress))
    values, store = network.start(), []
    marks = set(np.linspace(budget.pretrain_steps, 1, budget.snapshots).astype(int).tolist())
    mixture = mixture_of(alpha.value, beta.value)
    for step in range(1, budget.pretrain_steps + 1):
        values = network.step(*values, mixture, *next(training))
        if step in marks:
            store.append(values)
        done()
    rng, loss = np.random.default_rng(seed), 0.0
    for _ in range(budget.outer_steps):
        place = int(rng.integers(len(store)))
        held = next(judging)
        with tf.GradientTape() as tape:
            at, values = [tf.convert_to_tensor(v.value) for v in (alpha, beta)], store[place]
            tape.watch(at)
            for _ in range(budget.inner_steps):
                values = network.step(*values, mixture_of(*at), *next(training))
            judged = network.judge(*values, *held)
        found = tape.gradient(judged, at, unconnected_gradients="zero")
        if all(np.all(np.isfinite(one)) for one in found):
            adam.apply([one + DECAY * v for one, v in zip(found, at, strict=True)], [alpha, beta])
            store[place], loss = values, float(judged)
        done()
    cut, best = mixture_of(alpha.value, beta.value)
    return loss, [float(one) for one in cut[:, 1]], [int(one) for one in np.argmax(best, axis=-1)]
