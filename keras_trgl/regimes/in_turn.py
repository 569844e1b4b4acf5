"""What the regimes share in which one stage trains at a time."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_trgl.checks import check_choice, check_integer
from keras_trgl.recording import shown, told
from keras_trgl.regimes.feature_cache import KINDS, FeatureCache
from keras_trgl.regimes.regime import Regime, Visit
from keras_trgl.regimes.stop_stage import StopStage

FROZEN = ("inference", "train")


class InTurn(Regime):
    """One stage steps at a time, on the output of the frozen stages before it.

    A member says in how many laps the epochs are spent; `Sequential` documents the arguments.
    """

    always_shown: tuple[str, ...] = ("epochs",)

    def __init__(
        self,
        epochs: int | Sequence[int],
        num_laps: int,
        cache: Any,
        frozen: str,
        stop: StopStage | None,
        idle_device: str | None,
    ) -> None:
        counts: list[Any] = list(epochs) if isinstance(epochs, (list, tuple)) else [epochs]
        for count in counts:
            check_integer("epochs", count, num_laps, "Every stage trains in every lap.")
            if count % num_laps:
                raise ValueError(
                    f"`epochs` must divide into {num_laps} laps. Received: epochs={epochs}. "
                    f"Near it: {count - count % num_laps}."
                )
        check_choice("frozen", frozen, FROZEN)
        if cache is not None and not isinstance(cache, (str, FeatureCache)):
            raise TypeError(
                "`cache` must be None, 'memory', 'disk' or a `FeatureCache`. "
                f"Received: cache={cache!r}."
            )
        if cache is not None and frozen == "train":
            raise ValueError(
                "Features can be cached only if frozen stages are in inference mode. Received: "
                "frozen='train' with a cache. In training mode features depend on the batch: "
                "leave out one of the two."
            )
        if stop is not None and not isinstance(stop, StopStage):
            raise TypeError(f"`stop` must be a `StopStage` or None. Received: stop={stop!r}.")
        self.epochs = list(epochs) if isinstance(epochs, (list, tuple)) else int(epochs)  # type: ignore[arg-type]
        self.laps = num_laps
        self.cache = FeatureCache(cache) if isinstance(cache, str) else cache
        self.frozen = frozen
        self.stop = stop
        self.idle_device = idle_device

    def __repr__(self) -> str:
        given = told(self)
        for kind in KINDS:
            if given.get("cache") == FeatureCache(kind):
                given["cache"] = kind  # As it is mostly given.
        return shown(self, **given)

    def visits(self, num_stages: int) -> tuple[Visit, ...]:
        """Give a visit per lap and stage.

        Args:
            num_stages: int ≥ 1. Stages there are.

        Returns:
            Tuple of `Visit`, lap by lap, stage by stage.

        Raises:
            ValueError: `epochs` is a list of another length.
        """
        counts = self.epochs if isinstance(self.epochs, list) else [self.epochs] * num_stages
        if len(counts) != num_stages:
            raise ValueError(
                f"A list of `epochs` must have one number per stage, {num_stages}. "
                f"Received: epochs={self.epochs}. Give one number to use it for every stage."
            )
        return tuple(
            Visit((stage,), lap, counts[stage] // self.laps)
            for lap in range(1, self.laps + 1)
            for stage in range(num_stages)
        )

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        serialize = keras.saving.serialize_keras_object
        return {
            "epochs": self.epochs,
            "cache": None if self.cache is None else serialize(self.cache),
            "frozen": self.frozen,
            "stop": None if self.stop is None else serialize(self.stop),
            "idle_device": self.idle_device,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Regime":
        """Make the regime from `get_config`'s result."""
        made = {
            key: keras.saving.deserialize_keras_object(value) if isinstance(value, dict) else value
            for key, value in config.items()
        }
        return cls(**made)
