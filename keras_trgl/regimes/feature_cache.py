"""The setting that says where the inputs of the stage in training are kept."""

import dataclasses
import os
from typing import Any

from keras_trgl.checks import check_choice, check_integer
from keras_trgl.recording import Recorded
from keras_trgl.registration import public

KINDS = ("memory", "disk")


@public
@dataclasses.dataclass(frozen=True, repr=False)
class FeatureCache(Recorded):
    """Where the inputs of the stage in training are kept, so that frozen stages run once.

    Args:
        kind: `"memory"`: host memory. `"disk"`: a file without a name, that the system removes
            with the process, however that ends. Defaults to `"memory"`.
        max_bytes: int > 0 or `None`. Limit, in bytes, of all that is held at once. While features
            are computed from those of the stage before, both are held. Defaults to `None`.
        directory: path or `None`. Folder of the file of `kind="disk"`, which must be there;
            `None` is the system's temporary folder. Defaults to `None`.
        copies: int ≥ 1 or `None`. Copies of each example, augmented differently, that the epochs
            take in turn. Data that are augmented at random, or may be, need the number; `1` keeps
            one pass as it comes. Defaults to `None`.

    Raises:
        ValueError: another word for `kind`, `max_bytes` or `copies` below 1, or a `directory`
            for features in memory.

    Example:
        >>> from keras_trgl.regimes.feature_cache import FeatureCache
        >>> FeatureCache("disk", max_bytes=2**30).kind
        'disk'
    """

    always_shown = ("kind",)

    kind: str = "memory"
    max_bytes: int | None = None
    directory: Any = None
    copies: int | None = None

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        for name in ("max_bytes", "copies"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), 1, "`None` sets none.")
        if self.directory is None:
            return
        if self.kind != "disk":
            raise ValueError(
                "`directory` is for features on disk. Received: "
                f"directory={str(self.directory)!r}, kind={self.kind!r}. Pass kind='disk'."
            )
        object.__setattr__(self, "directory", os.fspath(self.directory))

    def get_config(self) -> dict[str, Any]:
        """Give the arguments, as plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FeatureCache":
        """Make the cache from `get_config`'s result."""
        return cls(**config)
