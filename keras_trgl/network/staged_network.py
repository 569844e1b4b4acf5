"""A network of stages and heads: how it is built, called, cut off at a depth and saved."""

from typing import Any

import keras

from keras_trgl.keeping.saving import check_weights_fit, saved_aside, weights_kept_on_failure
from keras_trgl.layers.stage import Stage
from keras_trgl.network.placement import Placement, on_devices
from keras_trgl.network.truncate import Cuts
from keras_trgl.types import Shape, Tensor


class StagedNetwork(keras.Model):
    """What `GreedyModel` is before it trains: stages in a row, with a head at each end.

    A member sets `stages`, `heads` and `placement`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._cuts = Cuts()

    stages: list[Stage]
    heads: list[Any]
    placement: Placement
    built: bool
    train_function: Any
    test_function: Any
    predict_function: Any
    _input_shape: Shape | None = None

    @property
    def num_stages(self) -> int:
        """K."""
        return len(self.stages)

    @property
    def input_shape(self) -> Shape:
        """Shape of the data, batch axis included.

        Raises:
            ValueError: the model is not built.
        """
        return self._first(0)[2]

    def build(self, input_shape: Shape) -> None:
        """Build stages and heads for data of this shape, batch axis included.

        Raises:
            ValueError: a head does not fit the features of its stage.
        """
        if self.built:
            return
        shape: Shape = (None, *tuple(input_shape)[1:])
        self._input_shape = shape
        if self.placement.is_open:
            self._settle(shape)
        for depth, (stage, head) in enumerate(zip(self.stages, self.heads, strict=True), start=1):
            with self.placement.on(depth - 1):
                if not stage.built:
                    stage.build(shape)
                shape = tuple(stage.compute_output_shape(shape))
                if not head.built:
                    self._build_head(head, depth, shape)
        self.built = True

    def _settle(self, shape: Shape) -> None:
        """Choose the stages' devices, and move what was made before there."""
        self.placement.resolve(self.stages, self.heads, shape)
        for k, (stage, head) in enumerate(zip(self.stages, self.heads, strict=True)):
            self.placement.move(k, [*stage.variables, *head.variables])

    @staticmethod
    def _build_head(head: Any, depth: int, shape: Shape) -> None:
        try:
            head.build(shape)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"Head {depth}, {head.name}, does not fit stage {depth}, whose features are "
                f"{shape}. Received: {error}"
            ) from error

    def call(self, inputs: Tensor, training: bool | None = None, exits: Any = None) -> Any:
        """Predict at one depth or at all.

        Args:
            inputs: tensor, `(batch, …)`.
            training: bool. Whether layers run in training mode. Adds no energy. Defaults to
                the caller's.
            exits: `None`: the last depth. `"all"`: every depth, a list. int k: depth k.
                Defaults to `None`.

        Returns:
            Tensor `(batch, units)`, or the list of K of them.
        """
        depths = self._depths(exits)
        x, predictions = inputs, {}
        for depth in range(1, max(depths) + 1):
            with self.placement.on(depth - 1):
                # Blocks, not the stage: predictions add no energy.
                for block in self.stages[depth - 1].blocks:
                    x = block(x)
                if depth in depths:
                    predictions[depth] = self.heads[depth - 1](x)
        return [predictions[d] for d in depths] if exits == "all" else predictions[depths[0]]

    def _depths(self, exits: Any) -> list[int]:
        if exits == "all":
            return list(range(1, self.num_stages + 1))
        depth = self.num_stages if exits is None else exits
        if isinstance(depth, bool) or not isinstance(depth, int):
            raise TypeError(f"A depth must be an int, `None` or 'all'. Received: {depth!r}.")
        if not 1 <= depth <= self.num_stages:
            raise ValueError(
                f"A depth must be 1 to {self.num_stages}, the number of stages. Received: {depth}."
            )
        return [depth]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Give the last prediction's shape."""
        shape = tuple(input_shape)
        for stage in self.stages:
            shape = tuple(stage.compute_output_shape(shape))
        return tuple(self.heads[-1].compute_output_shape(shape))

    @on_devices
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predict at the last depth, with the arguments of `keras.Model.predict`."""
        self.drain()
        return super().predict(*args, **kwargs)

    @on_devices
    def predict_on_batch(self, x: Any) -> Any:
        """Predict one batch at the last depth."""
        return super().predict_on_batch(x)

    @on_devices
    def predict_exits(self, x: Any, **kwargs: Any) -> list[Any]:
        """Predict at every depth.

        Args:
            x: data, as `predict` takes them.
            **kwargs: `batch_size`, `verbose`, `steps`, `callbacks`, as in `predict`.

        Returns:
            List of K arrays, `(examples, units)` each, for depths 1…K.
        """
        self.drain()
        stages, heads, _ = self._first(self.num_stages)
        predictions = self._cuts.all_exits(stages, heads, f"{self.name}_exits").predict(x, **kwargs)
        return list(predictions) if isinstance(predictions, (list, tuple)) else [predictions]

    def truncate(self, depth: int) -> keras.Model:
        """Give F_k∘G_k as a plain functional model that shares the weights, one per depth.

        Args:
            depth: int, k = 1…K.

        Returns:
            `keras.Model` without energy loss; needs no class of this package's model to serve,
            and loads as a functional model.

        Raises:
            ValueError: `depth` is not 1…K, or the model is not built.
        """
        (depth,) = self._depths(depth)
        stages, heads, shape = self._first(depth)
        return self._cuts.truncated(stages, heads, shape, f"{self.name}_depth_{depth}")

    def _first(self, depth: int) -> tuple[list[Stage], list[Any], Shape]:
        if not self.built or self._input_shape is None:
            raise ValueError(
                "A depth can be used by itself once the model is built. Received: an unbuilt "
                "model. Call it on data or `model.build(input_shape)` first."
            )
        return self.stages[:depth], self.heads[:depth], self._input_shape

    def _prediction_shapes(self) -> list[Shape]:
        shape, shapes = self._input_shape or (), []
        for stage, head in zip(self.stages, self.heads, strict=True):
            shape = tuple(stage.compute_output_shape(shape))
            shapes.append(tuple(head.compute_output_shape(shape)))
        return shapes

    def drain(self) -> None:
        """Let later stages train on the batches that are on their way; here there are none."""

    def export(self, filepath: Any, **kwargs: Any) -> None:
        """Export the last depth as Keras does; `truncate(k).export(…)` exports another.

        Raises:
            ValueError: the model is not built; or it has its stages on devices, and the call
                is inside a strategy's scope.
        """
        _, _, shape = self._first(self.num_stages)
        if self.placement.strategy is not None:
            self._unplaced().export(filepath, **kwargs)
            return
        # Keras exports only what was called; training calls stages, not the model.
        self(keras.ops.zeros((1, *[side or 1 for side in shape[1:]])))
        super().export(filepath, **kwargs)

    def _unplaced(self) -> "StagedNetwork":
        """Give a copy on the default device, whose graph names no other.

        Raises:
            ValueError: inside a strategy's scope, where a copy would be placed too.
        """
        copy = type(self).from_config(self.get_config())
        if copy.placement.strategy is not None:
            raise ValueError(
                "A model is exported outside the scope of a strategy, so that no device gets into "
                "the export. Received: a call in such a scope. Export after it."
            )
        copy.build(self._input_shape or ())
        for variable, value in zip(copy.variables, self.variables, strict=True):
            variable.assign(value.numpy())
        return copy

    @on_devices
    def save(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        """Save as Keras does, but aside and then renamed: the old file stays whole till then."""
        self.drain()
        with saved_aside(filepath, overwrite) as aside:
            super().save(aside, overwrite=overwrite, **kwargs)

    @on_devices
    def save_weights(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        """Save the weights as Keras does, but aside and then renamed."""
        self.drain()
        with saved_aside(filepath, overwrite) as aside:
            super().save_weights(aside, overwrite=overwrite, **kwargs)

    @on_devices
    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Load weights of the same network; of another, raise and change nothing.

        Raises:
            ValueError: the file holds another model's weights.
        """
        with weights_kept_on_failure(self, filepath):
            if not skip_mismatch and not kwargs.get("objects_to_skip"):
                check_weights_fit(self, filepath)
            super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)
