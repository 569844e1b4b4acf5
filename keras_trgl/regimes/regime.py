"""When stages train: the abstract regime."""

from typing import Any


class Regime:
    """Says which stages step on a batch. It never sees a tensor."""

    def plan(self, num_stages: int) -> tuple[int, ...]:
        """Give the positions, from 0, of the stages that step on the next batch, in order."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Regime":
        """Make the regime from `get_config`'s result."""
        return cls(**config)
