"""Types that cross folders."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import keras

Tensor: TypeAlias = Any
"""A backend tensor, a `KerasTensor` or a NumPy array."""

Shape: TypeAlias = tuple[int | None, ...]
"""A tensor's shape; `None` marks an axis whose size is not known yet."""

LayerLike: TypeAlias = keras.layers.Layer | Sequence[keras.layers.Layer]
"""One layer or a list of them: a stage, or the heads."""

OptimizerLike: TypeAlias = str | keras.optimizers.Optimizer | Sequence[keras.optimizers.Optimizer]
"""One optimizer, copied for every stage, or a list of K."""

CallbacksLike: TypeAlias = (
    keras.callbacks.Callback
    | keras.callbacks.CallbackList
    | Iterable[keras.callbacks.Callback]
    | None
)
"""Callbacks as `fit` takes them."""

Logs: TypeAlias = dict[str, Any]
"""Names to numbers, as Keras hands them to callbacks."""


@dataclasses.dataclass(frozen=True)
class StagePlace:
    """Where a stage stands in its network.

    Attributes:
        depth: int. k, counted from 1.
        num_stages: int. K.
        data_shape: tuple. Shape of the network's input, `(None, …)`, batch axis first.
        input_shape: tuple. Shape of the stage's input, batch axis first.
        feature_shape: tuple. Shape of the stage's features, batch axis first.
        units: int or `None`. `units` of the head that was given, where it has some.
        later_blocks: tuple of layers. The blocks of the stages after this one, to copy in shape.
        last_block: int. Position in the network of the stage's last block, counted from 0.
    """

    depth: int
    num_stages: int
    data_shape: Shape
    input_shape: Shape
    feature_shape: Shape
    units: int | None
    later_blocks: tuple[Any, ...]
    last_block: int = 0

    @property
    def is_last(self) -> bool:
        """Whether no stage comes after it."""
        return self.depth == self.num_stages


@runtime_checkable
class KnowsMeanSquare(Protocol):
    """A layer that can find the mean square of its outputs more cheaply than from them."""

    def record(self, on: bool) -> None:
        """Begin or end finding it."""

    @property
    def mean_square(self) -> Tensor | None:
        """Scalar of the latest call, or `None` where the call gave none."""


@runtime_checkable
class HoldsUnits(Protocol):
    """A layer that knows the residual units in it.

    Attributes:
        residual_units: list of `ResidualUnit`, in order.
    """

    residual_units: list[Any]


@runtime_checkable
class PassesSeveral(Protocol):
    """A layer that may take, or give, several tensors.

    Attributes:
        passes_several: whether it does.
        given: what it takes, each told by its `shape`, `dtype` and `name`, in their structure.
    """

    passes_several: bool
    given: Any


@runtime_checkable
class StagePlacement(Protocol):
    """A strategy that puts stages on devices.

    Attributes:
        devices: full names of the devices.
        stage_devices: `None`, a list of a device per stage, `"memory"` or `"time"`.
        schedule: `"skewed"` or `"synchronous"`.
        is_remote: whether a device is in another process.
    """

    devices: tuple[str, ...]
    stage_devices: Any
    schedule: str
    is_remote: bool

    def call(self, function: Callable[..., Any], *args: Any, **names: Any) -> Any:
        """Call a function that runs on the devices, and say which one is lost if one is."""
