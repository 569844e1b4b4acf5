"""A network of stages and heads: how it is built, called, cut off at a depth and saved."""

from typing import Any

import keras

from keras_trgl.keeping.saving import (
    check_weights_fit,
    read_seed,
    weights_kept_on_failure,
    write_seed,
    written_aside,
)
from keras_trgl.layers.chain import output_shape
from keras_trgl.layers.stage import Stage
from keras_trgl.network.live_seeds import build_blocks, build_seeded, seed_again
from keras_trgl.network.ownership import check_apart
from keras_trgl.network.placement import Placement, on_devices
from keras_trgl.network.truncate import all_exits_model, truncated_model
from keras_trgl.seeds import HEAD
from keras_trgl.types import Shape, Tensor


class StagedNetwork(keras.Model):
    """What `GreedyModel` is before it trains: stages in a row, with a head at each end.

    A member sets `stages`, `heads` and `placement`.
    """

    stages: list[Stage]
    heads: list[Any]
    placement: Placement
    seed: int
    _seed_is_given: bool
    built: bool
    train_function: Any
    test_function: Any
    predict_function: Any
    _input_shape: Shape | None = None

    @property
    def num_stages(self) -> int:
        """K."""
        return len(self.stages)

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
        blocks = 0
        for depth, (stage, head) in enumerate(zip(self.stages, self.heads, strict=True), start=1):
            with self.placement.on(depth - 1):
                if not stage.built:
                    build_blocks(stage.blocks, shape, self.seed, blocks)
                    stage.build(shape)
                shape = tuple(stage.compute_output_shape(shape))
                blocks += len(stage.blocks)
                if not head.built:
                    self._build_head(head, depth, shape, blocks - 1)
        check_apart(self.stages, self.heads)
        self.built = True

    def _settle(self, shape: Shape) -> None:
        """Choose the stages' devices, and move what was made before there."""
        self.placement.resolve(self.stages, self.heads, shape)
        for k, (stage, head) in enumerate(zip(self.stages, self.heads, strict=True)):
            self.placement.move(k, [*stage.variables, *head.variables])

    def _build_head(self, head: Any, depth: int, shape: Shape, block: int) -> None:
        # A head's seed comes from the index of the block before it, so it does not depend on K.
        try:
            build_seeded(head, shape, self.seed, HEAD, block)
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
        return output_shape(self.heads[-1], shape)

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
        stages, heads, shape = self._first(self.num_stages)
        predictions = all_exits_model(stages, heads, shape, f"{self.name}_exits").predict(
            x, **kwargs
        )
        return list(predictions) if isinstance(predictions, (list, tuple)) else [predictions]

    def truncate(self, depth: int) -> keras.Model:
        """Give F_k∘G_k as a plain functional model that shares the weights.

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
        return truncated_model(stages, heads, shape, f"{self.name}_depth_{depth}")

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
            shapes.append(output_shape(head, shape))
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
        with written_aside(filepath, overwrite) as aside:
            super().save(aside, overwrite=overwrite, **kwargs)

    @on_devices
    def save_weights(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        """Save the weights as Keras does, but aside and then renamed."""
        self.drain()
        with written_aside(filepath, overwrite) as aside:
            super().save_weights(aside, overwrite=overwrite, **kwargs)

    @on_devices
    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Load weights of the same network; of another, raise and change nothing.

        Raises:
            ValueError: the file holds another model's weights.
        """
        with weights_kept_on_failure(self, filepath):
            if not skip_mismatch:
                check_weights_fit(self, filepath)
            super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)

    def save_assets(self, dir_path: Any) -> None:
        """Keep a seed that was drawn, which is no setting, in a saved model's file."""
        if not self._seed_is_given:
            write_seed(dir_path, self.seed)

    def load_assets(self, dir_path: Any) -> None:
        """Take up the seed that the saved model had drawn; a clone draws its own."""
        seed = read_seed(dir_path)
        if seed is not None:
            self.seed = seed
            if self.built:
                seed_again(self.stages, self.heads, seed)
