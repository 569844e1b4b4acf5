"""A network of stages and heads: how it is built, called and cut off at a depth.

A plain object, out of Keras's sight: `GreedyModel` shows its layers to Keras, and asks it.
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import keras

from keras_trgl.layers.chain import main_shape, output_shape
from keras_trgl.layers.inner import follow_format
from keras_trgl.layers.masks import keeping_mask
from keras_trgl.layers.stage import Stage
from keras_trgl.methods.method import LocalMethod
from keras_trgl.network.door import Door
from keras_trgl.network.live_seeds import build_blocks, build_seeded, seed_again
from keras_trgl.network.no_head import NoHead
from keras_trgl.network.ownership import (
    check_apart,
    method_head,
    method_layers,
    own_parts,
    predicts,
)
from keras_trgl.network.part import Part
from keras_trgl.network.passing import main
from keras_trgl.network.truncate import Cuts
from keras_trgl.seeds import HEAD, METHOD_LAYER
from keras_trgl.types import Shape, StagePlace, Tensor


@dataclasses.dataclass
class StagePart:
    """One stage with what belongs to it.

    Attributes:
        stage: `Stage`, T_k.
        given_head: the head as the user gave it.
        head: the head in use, F_k; another than `given_head` where the method says so, and a
            `NoHead` where the stage predicts nothing.
        layers: dict of name to the method's own layers for this stage.
        place: where the stage stands, or `None` before the network is built.
    """

    stage: Stage
    given_head: Any
    head: Any
    layers: dict[str, Any] = dataclasses.field(default_factory=dict)
    place: StagePlace | None = None

    @property
    def predicts(self) -> bool:
        """Whether the stage has a head."""
        return not isinstance(self.head, NoHead)

    @property
    def variables(self) -> list[Any]:
        """All variables, those of the method's layers included."""
        return [v for layer in self._all_layers for v in layer.variables]

    @property
    def weights(self) -> list[Any]:
        """All variables but the states of random layers and metrics."""
        return [v for layer in self._all_layers for v in layer.weights]

    @property
    def trainable_variables(self) -> list[Any]:
        """What the stage's optimizer trains; the method's layers freeze with the stage."""
        layers = self._all_layers if self.stage.trainable else [self.stage, self.head]
        return [v for layer in layers for v in layer.trainable_variables]

    @property
    def _all_layers(self) -> list[Any]:
        return [self.stage, self.head, *self.layers.values()]


class StagedNetwork:
    """Stages in a row, with a head at each end.

    Args:
        stages: list of stages as the user gave them: `Stage`, a layer, or a list of layers each.
        heads: list of heads as the user gave them.
        method: what stages learn from.
        seed: int ≥ 0. Seed of initial weights.

    Attributes:
        parts: list of K `StagePart`.
        placement: where the stages live.
        door: in what form data come in.
        input_shape: shape of the data, batch axis included, or `None` before `build`.
    """

    def __init__(
        self, stages: Sequence[Any], heads: Sequence[Any], method: LocalMethod, seed: int
    ) -> None:
        own, given, self.placement = own_parts(stages, heads, method)
        self.parts = [StagePart(stage, head, head) for stage, head in zip(own, given, strict=True)]
        for k, part in enumerate(self.parts):
            if not predicts(method, k, len(self.parts)):
                part.head = NoHead(k + 1, len(self.parts), method)
        self.method = method
        self.seed = seed
        self.input_shape: Shape | None = None
        self.door = Door(self.stages[0].blocks)
        self._cuts = Cuts()

    @property
    def num_stages(self) -> int:
        """K."""
        return len(self.parts)

    @property
    def stages(self) -> list[Stage]:
        """T_1 … T_K."""
        return [part.stage for part in self.parts]

    @property
    def heads(self) -> list[Any]:
        """F_1 … F_K, those in use."""
        return [part.head for part in self.parts]

    @property
    def given_layers(self) -> list[Any]:
        """Blocks and heads, as they were handed over or copied of what was."""
        return [*self.blocks, *(part.given_head for part in self.parts)]

    @property
    def blocks(self) -> list[Any]:
        """The blocks of all stages, in order."""
        return [block for stage in self.stages for block in stage.blocks]

    @property
    def expected_input_shape(self) -> Shape | None:
        """Shape of the data with its batch axis, where the first block tells it."""
        shape = getattr(self.stages[0].blocks[0], "expected_input_shape", None)
        return None if shape is None else (None, *shape)

    def build(self, input_shape: Any) -> None:
        """Build stages, heads and the method's layers for data of this shape, batch axis included.

        Raises:
            ValueError: a head does not fit the features of its stage, or the method gives
                something else than layers.
        """
        if not isinstance(input_shape, (Sequence, dict)) or len(input_shape) < 1:
            raise TypeError(
                "`input_shape` must be a tuple with the batch axis first. Received: "
                f"input_shape={input_shape!r}. Give `(None, features)` or `(None, height, width, "
                "channels)`."
            )
        shape = self.door.build_shape(input_shape)
        self.input_shape = shape
        if self.placement.is_open:
            self.placement.resolve(self.stages, self.heads, shape, self.method)
            for k, part in enumerate(self.parts):
                self.placement.move(k, part.variables)
        blocks = 0
        for k, part in enumerate(self.parts):
            with self.placement.on(k):
                if not part.stage.built:
                    build_blocks(part.stage.blocks, shape, self.seed, blocks)
                    part.stage.build(shape)
                blocks += len(part.stage.blocks)
                part.place = self._place(k, shape)
                shape = part.stage.compute_output_shape(shape)
                self._build_beside(part, part.place, blocks - 1)
        check_apart(self.parts)
        self._tell_of_stages_without_residuals()

    def _tell_of_stages_without_residuals(self) -> None:
        """Warn of stages where the method's regulariser has nothing to act on."""
        idle = [
            str(k)
            for k, part in enumerate(self.parts, start=1)
            if not part.stage.residual_units
            and part.stage.trainable_variables
            and part.place is not None
            and self.method.stage_regularizer(part.place) is not None
        ]
        if idle:
            cut = isinstance(self.stages[0].blocks[0], Part)
            ways = "Pass `on_no_residual='distance'`" if cut else "Build stages of `ResidualBlock`s"
            warnings.warn(
                f"{self.method!r} regularises residuals, and there is none in stage "
                f"{', '.join(idle)}: there it trains as `VanGL` does. {ways}, or pass "
                "`method='vangl'`.",
                stacklevel=4,
            )

    def _build_beside(self, part: StagePart, place: StagePlace, block: int) -> None:
        """Choose and build a stage's head and the method's layers.

        Seeds come from the index of the block before them, so that they do not depend on K.
        """
        follow_format(part.given_head, part.stage.blocks)
        if part.predicts:
            self._build_head(part, place, block)
        for index, (name, (layer, shape)) in enumerate(method_layers(self.method, place).items()):
            follow_format(layer, part.stage.blocks)
            build_seeded(layer, shape, self.seed, METHOD_LAYER, block, index)
            part.layers[name] = layer

    def _build_head(self, part: StagePart, place: StagePlace, block: int) -> None:
        part.head = method_head(self.method, place, part.given_head)
        follow_format(part.head, part.stage.blocks)
        try:
            build_seeded(part.head, place.feature_shape, self.seed, HEAD, block)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"Head {place.depth}, {part.head.name}, does not fit stage {place.depth}, whose "
                f"features are {place.feature_shape}. Received: {error}"
            ) from error

    def seed_again(self, seed: int) -> None:
        """Take up another seed: built layers' seed generators get the states that it gives.

        Args:
            seed: int ≥ 0. The seed that a saved model had drawn.
        """
        self.seed = seed
        if self.input_shape is not None:
            seed_again(self.stages, self.heads, seed)

    def _place(self, k: int, shape: Any) -> StagePlace:
        part = self.parts[k]
        return StagePlace(
            depth=k + 1,
            num_stages=self.num_stages,
            data_shape=self.input_shape or (),
            input_shape=main_shape(shape),
            feature_shape=main_shape(part.stage.compute_output_shape(shape)),
            units=getattr(part.given_head, "units", None),
            later_blocks=tuple(b for later in self.parts[k + 1 :] for b in later.stage.blocks),
            last_block=sum(len(part.stage.blocks) for part in self.parts[: k + 1]) - 1,
        )

    def call(self, inputs: Tensor, exits: Any = None) -> Any:
        """Predict at one depth or at all; adds no energy.

        Args:
            inputs: tensor, `(batch, …)`.
            exits: `None`: the last depth. `"all"`: every depth, a list. int k: depth k.
                Defaults to `None`.

        Returns:
            Tensor `(batch, units)`, or the list of K of them.
        """
        depths = self.depths(exits)
        x, predictions = self.door.take(inputs, self.input_shape), {}
        for depth in range(1, max(depths) + 1):
            with self.placement.on(depth - 1):
                # Blocks, not the stage: predictions add no energy.
                for block in self.parts[depth - 1].stage.blocks:
                    x = block(x)
                if depth in depths:
                    predictions[depth] = keeping_mask(self.parts[depth - 1].head, main(x))
        return [predictions[d] for d in depths] if exits == "all" else predictions[depths[0]]

    def depths(self, exits: Any) -> list[int]:
        """Give the depths that `exits` names, from 1.

        Raises:
            TypeError: it is no int, `None` or `"all"`.
            ValueError: there is no such depth.
        """
        if exits == "all":
            return list(range(1, self.num_stages + 1))
        depth = self.num_stages if exits is None else exits
        if isinstance(depth, bool) or not isinstance(depth, Integral):
            raise TypeError(f"A depth must be an int, `None` or 'all'. Received: {depth!r}.")
        depth = int(depth)
        if not 1 <= depth <= self.num_stages:
            raise ValueError(
                f"A depth must be 1 to {self.num_stages}, the number of stages. Received: {depth}."
            )
        return [depth]

    def output_shape(self, input_shape: Any) -> Shape:
        """Give the last prediction's shape; needs nothing built."""
        shape = input_shape
        for stage in self.stages:
            shape = stage.compute_output_shape(shape)
        return output_shape(self.heads[-1], main_shape(shape))

    @property
    def prediction_shapes(self) -> list[Shape]:
        """Shapes of the heads' outputs, batch axis included; of a built network."""
        shapes: list[Shape] = []
        for part in self.parts:
            shape = part.place.feature_shape if part.place is not None else ()
            shapes.append(output_shape(part.head, shape))
        return shapes

    @property
    def shown_layers(self) -> list[Any]:
        """Blocks in order, heads, and the method's layers."""
        named = named_layers(self.parts).values()
        return [*self.blocks, *(layer for layers in named for layer in layers)]

    @property
    def every_layer(self) -> list[Any]:
        """All that a name may mean: `shown_layers`, stages, and layers of models among blocks."""
        shown = self.shown_layers
        models = [layer for layer in shown if isinstance(layer, (keras.Model, Part))]
        return [*shown, *self.stages, *(one for model in models for one in model.layers)]

    def shown_shape(self, asked: str) -> Shape:
        """Give the shape of the data, batch axis included, for a property of a Keras model.

        Raises:
            AttributeError: the network is not built, as of an unbuilt `keras.Sequential`: tools
                ask by `hasattr`.
        """
        if self.input_shape is None:
            raise AttributeError(
                f"A model has `{asked}` once it is built. Received: an unbuilt model. Call it on "
                "data or `model.build(input_shape)` first."
            )
        return self.input_shape

    def truncated(self, depth: Any, name: str) -> keras.Model:
        """Give F_k∘G_k as a plain functional model that shares the weights.

        Raises:
            ValueError: there is no such depth, or the network is not built.
        """
        if depth == "all":
            raise ValueError(
                "`truncate` gives one depth. Received: 'all'. Use `model.predict_exits(x)` for the "
                f"predictions of all, or a depth, 1 to {self.num_stages}."
            )
        (depth,) = self.depths(depth)
        shape = self.built_shape()
        stages, heads = self.stages[:depth], self.heads[:depth]
        data = self.door.name
        return self._cuts.truncated(stages, heads, shape, f"{name}_depth_{depth}", data)

    def all_exits(self, name: str) -> keras.Model:
        """Give a model with every depth's prediction, the same one every time.

        Raises:
            ValueError: the network is not built, or a stage predicts nothing.
        """
        shape = self.built_shape()
        for head in self.heads:
            if isinstance(head, NoHead):
                head.refuse()
        return self._cuts.all_exits(self.stages, self.heads, shape, f"{name}_exits")

    def check_form(self, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Raise where data have another form than the network was built for.

        Args:
            args: positional arguments, the data first.
            kwargs: named ones.

        Raises:
            ValueError: they have.
        """
        self.door.check(args[0] if args else kwargs.get("x"), self.input_shape)

    def built_shape(self) -> Shape:
        """Give the shape of the data, batch axis included.

        Raises:
            ValueError: the network is not built.
        """
        if self.input_shape is None:
            raise ValueError(
                "A depth can be used by itself once the model is built. Received: an unbuilt "
                "model. Call it on data or `model.build(input_shape)` first."
            )
        return self.input_shape


def named_layers(parts: Sequence[StagePart]) -> Mapping[str, list[Any]]:
    """Give the heads in use and the methods' layers, in an order that is that of their weights."""
    return {
        "heads": [part.head for part in parts],
        "method_layers": [layer for part in parts for layer in part.layers.values()],
    }
