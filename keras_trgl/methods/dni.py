"""DNI: decoupled neural interfaces, gradients that a small net makes up."""

from typing import Any

import keras
from keras import ops

from keras_trgl.checks import check_integer, check_positive
from keras_trgl.layers.batch_normalization import BatchNormalization
from keras_trgl.methods.delayed import DelayedMethod
from keras_trgl.methods.method import InFlight, StageBatch
from keras_trgl.registration import public
from keras_trgl.types import Shape, StagePlace, Tensor

SIZE = 5
"""Side of the convolutions, as published."""

CONVOLUTIONS = {3: keras.layers.Conv1D, 4: keras.layers.Conv2D}


@public
class DNI(DelayedMethod):
    """Stage k takes a gradient that a net makes of its features and the labels.

    With h_k the features, δ_k the gradient of the mean loss for them that stage k + 1 has found on
    the same batch, itself by a made-up gradient but for the last stage's, S_k the net, and n the
    examples of the batch::

        stage k < K minimises ⟨h_k, S_k(h_k, y) / n⟩, the gradient taken as given;
        S_k minimises weight · mean (S_k(h_k, y) − n δ_k)².

    The factor n makes what S_k learns independent of the batch's size; the mean is over all
    numbers. The net has three convolutions of side 5 (dense layers where features have no
    positions), the last zero at the start, so that stages below the last stand until their net has
    learnt something; batch normalization and ReLU between; the labels, one-hot, go through a dense
    layer that is added after the first. Stage and net have one optimizer: in the paper Adam with
    3e-5, by batches of 256.

    Stages run forward once more on the same batch, from the last to the first, which has the
    batch's own dropout masks and moves no statistics. So one stage's activations are there at a
    time, and every stage's input. In the paper no stage waits; here none is late. Logged as
    `stage_k_gradient_error`, weighted, for k < K.

    Args:
        width: int ≥ 1. Channels between the convolutions. Defaults to `128`.
        weight: float > 0. Of the nets' error. Gradients are small numbers, and so is the mean of
            their squares: an optimizer that is not of Adam's kind needs a large weight. Defaults
            to `1.0`.

    Raises:
        ValueError: `width` is below 1, `weight` not above 0; at build, the given head has no
            `units`, or features are neither numbers, tokens nor images.
        TypeError: `width` is no integer, `weight` no number.

    Example:
        >>> import keras_trgl as trgl
        >>> blocks = trgl.architectures.resnet(depth=8, input_shape=(8, 8, 1))
        >>> model = trgl.GreedyModel.from_blocks(
        ...     blocks, [2, 1], trgl.heads.LinearHead(units=3), method=trgl.methods.DNI(width=16))
        >>> model.truncate(2).output_shape
        (None, 3)

    Reference:
        Jaderberg et al., "Decoupled Neural Interfaces using Synthetic Gradients", ICML 2017,
        section 2.
    """

    loss_names = ("gradient_error",)
    replays = True

    def __init__(self, width: int = 128, weight: float = 1.0) -> None:
        check_integer("width", width, 1)
        check_positive("weight", weight)
        self.width = int(width)
        self.weight = float(weight)

    def staleness(self, stage: StagePlace) -> int:
        """Give 0: gradients are those of the same batch."""
        del stage
        return 0

    def in_flight(self, stage: StagePlace) -> InFlight:
        """Say that inputs of all stages wait for the way down."""
        # Data, and the input of the stage in training, are counted as they are.
        return InFlight(inputs=int(1 < stage.depth < stage.num_stages))

    def stage_layers(self, stage: StagePlace) -> dict[str, Any]:
        """Give the net, below the last stage."""
        if stage.is_last:
            return {}
        return {"synthesizer": Synthesizer(self._units(stage), self.width)}

    def _units(self, stage: StagePlace) -> int:
        """Give the number of units of the last head, and check what the net is told.

        Raises:
            ValueError: it has none, or features are of another kind.
        """
        rank = len(stage.feature_shape)
        if rank != 2 and rank not in CONVOLUTIONS:
            raise ValueError(
                "DNI makes gradients for numbers, tokens or images. Received: features "
                f"{tuple(stage.feature_shape)} of stage {stage.depth}. Cut the network elsewhere."
            )
        if stage.units is None:
            raise ValueError(
                "DNI tells its nets the class, so the last head must say how many there are. "
                "Received: a head without `units`. Give one that has, such as "
                "`heads.LinearHead(10)`."
            )
        return stage.units

    def stage_losses(self, step: StageBatch) -> dict[str, Tensor]:
        """Give the task loss, or below the last stage ⟨features, made-up gradient⟩ and the error.

        Args:
            step: `StageBatch`. Where the stage is not the last `labels` is a `FromAbove`.
        """
        if step.stage.is_last:
            return {"task": step.task_loss}
        above, net, floatx = step.labels, step.layers["synthesizer"], keras.config.floatx()
        features = ops.cast(step.features, floatx)
        count = ops.cast(ops.shape(features)[0], floatx)
        labels = _as_context(above.labels, net.units)
        made = net(ops.stop_gradient(step.features), labels, training=step.training)
        made = ops.cast(made, floatx)
        error = ops.mean(ops.square(made - count * ops.cast(above.gradients, floatx)))
        task = ops.sum(features * ops.stop_gradient(made) / count)
        return {"task": task, "gradient_error": self.weight * error}

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {"width": self.width, "weight": self.weight}


def _as_context(labels: Tensor, units: int) -> Tensor:
    """Give labels as a row of `units` numbers each."""
    if len(labels.shape) < 2 or labels.shape[-1] != units:
        labels = ops.one_hot(ops.reshape(labels, (-1,)), units)
    return labels


class Synthesizer(keras.layers.Layer):
    """The net that makes a gradient for features, of the features and the labels.

    Args:
        units: int ≥ 1. Numbers that tell the label.
        width: int ≥ 1. Channels between the convolutions.
        data_format: `"channels_last"` or `"channels_first"`, or `None` for Keras's. Defaults to
            `None`.
        **kwargs: `name` and the like.
    """

    def __init__(
        self, units: int, width: int, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.units = int(units)
        self.width = int(width)
        self.data_format = data_format
        self._row: list[keras.layers.Layer] = []

    def build(self, input_shape: Shape) -> None:
        """Make the layers for features of this shape, batch axis included."""
        rank = len(input_shape)
        form = self.data_format or keras.config.image_data_format()
        first = rank == 4 and form == "channels_first"
        channels: Any = input_shape[1 if first else -1]
        policy = {"dtype": self.dtype_policy}
        # Where the labels' numbers stand, beside the channels.
        self._context_shape = [-1, *[1] * (rank - 2)]
        self._context_shape.insert(1 if first else rank - 1, self.width)

        def layer(width: int, **options: Any) -> Any:
            if rank == 2:
                return keras.layers.Dense(width, **options, **policy)
            place = {"data_format": form} if rank == 4 else {}
            conv: Any = CONVOLUTIONS[rank]
            return conv(width, SIZE, padding="same", **place, **options, **policy)

        def norm() -> Any:
            axis = 1 if first else -1
            return BatchNormalization(axis=axis, momentum=0.9, epsilon=1e-5, **policy)

        shape = list(input_shape)
        inner = [*shape[:1], self.width, *shape[2:]] if first else [*shape[:-1], self.width]
        last = layer(channels, kernel_initializer="zeros")
        self._row = [layer(self.width), norm(), layer(self.width), norm(), last]
        self._row[0].build(tuple(shape))
        for one in self._row[1:]:
            one.build(tuple(inner))
        self._context = keras.layers.Dense(self.width, **policy)
        self._context.build((None, self.units))
        self.built = True

    def call(self, features: Tensor, labels: Any = None, training: bool | None = None) -> Tensor:
        """Give the gradient of the batch's summed loss, as the net has it.

        Args:
            features: tensor, `(batch, …)`.
            labels: tensor `(batch, units)`, or `None` for none. Defaults to `None`.
            training: bool. Whether to normalize by the batch. Defaults to the caller's.

        Returns:
            Tensor, as `features`.
        """
        first, norm, second, other_norm, last = self._row
        x = first(features)
        if labels is not None:
            context = self._context(ops.cast(labels, self.compute_dtype))
            x = x + ops.reshape(context, self._context_shape)
        x = ops.relu(norm(x, training=training))
        x = ops.relu(other_norm(second(x), training=training))
        return last(x)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Give the features' shape."""
        return tuple(input_shape)
