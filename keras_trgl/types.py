"""Types that cross folders."""

from typing import Any, Protocol, TypeAlias, runtime_checkable

Tensor: TypeAlias = Any
"""A backend tensor, a `KerasTensor` or a NumPy array."""

Shape: TypeAlias = tuple[int | None, ...]
"""A tensor's shape; `None` marks an axis whose size is not known yet."""


@runtime_checkable
class KnowsMeanSquare(Protocol):
    """A layer that can find the mean square of its outputs more cheaply than from them."""

    def record(self, on: bool) -> None:
        """Begin or end finding it."""

    @property
    def mean_square(self) -> Tensor | None:
        """Scalar of the latest call, or `None` where the call gave none."""
