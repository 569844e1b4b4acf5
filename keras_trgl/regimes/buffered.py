"""The buffered regime: a store of batches between stages."""

from typing import Any

from keras_trgl.checks import check_choice, check_integer
from keras_trgl.regimes.regime import Regime
from keras_trgl.registration import public

ORDERS = ("round_robin", "random", "skewed")


@public
class Buffered(Regime):
    """Stages step on batches of features that the stage before left in a store.

    Between two stages sits a circular store of `capacity` batches of features with their labels.
    A stage that steps takes the batch that was used least often, of these the one written last,
    and writes its output into the next store. A stage without a batch to take sits out.

    A store of one batch read in turn is the parallel regime bit for bit; larger ones hold
    features of older weights: `stage_k_staleness` in the logs is the mean number of steps that
    stage k−1 made between writing a batch and its use by stage k.

    Args:
        capacity: int ≥ 1. Batches in each store. Defaults to `1`.
        order: `"round_robin"`: every stage once per batch of data, first to last. `"random"`:
            picks at random, each batch of data being a pick of stage 1. `"skewed"`: all stages
            in one call, stage k on the batch before that of stage k−1; stages then depend on
            nothing of the same call, and the weights are those of round robin. Defaults to
            `"round_robin"`.
        max_reuse: int ≥ 1 or `None`. How often a batch may be used. Defaults to `None`.
        warm_up: int ≥ 0 or `None`. At the start, and after every change of the learning rate,
            stages step in turn, this often each, stage 1 first. `None` is 2 for larger stores
            (published), 0 for `capacity=1`. Defaults to `None`.
        slow_stage: int ≥ 1 or `None`. Depth k of a stage that is picked less often; for
            `order="random"`. Defaults to `None`.
        slowdown: float in [0, 1). p: the slow stage keeps 1 − p of its weight among the picks,
            so it is slower by 1/(1 − p). Defaults to `0.0`.

    With `capacity` above 1 incomplete batches are trained on, not written.

    Raises:
        ValueError: a number out of range, another word for `order`, a larger store or a warm-up
            with `"skewed"`, or a slow stage without `"random"`.

    Example:
        >>> from keras_trgl.regimes import Buffered
        >>> Buffered(capacity=4, order="random", slow_stage=2, slowdown=0.5).pick_weights(3)
        [1.0, 0.5, 1.0]

    Reference:
        Belilovsky et al., "Decoupled Greedy Learning of CNNs", 2020, algorithm 2.
    """

    def __init__(
        self,
        capacity: int = 1,
        order: str = "round_robin",
        max_reuse: int | None = None,
        warm_up: int | None = None,
        slow_stage: int | None = None,
        slowdown: float = 0.0,
    ) -> None:
        check_integer("capacity", capacity, 1)
        check_choice("order", order, ORDERS)
        if max_reuse is not None:
            check_integer("max_reuse", max_reuse, 1)
        if warm_up is not None:
            check_integer("warm_up", warm_up, 0)
        if slow_stage is not None:
            check_integer("slow_stage", slow_stage, 1, "Stages count from 1.")
        if not 0.0 <= slowdown < 1.0:
            raise ValueError(
                f"`slowdown` must be at least 0 and below 1. Received: slowdown={slowdown}. At 1 "
                "the stage would never step."
            )
        if (slow_stage is not None) != (slowdown > 0) or (slowdown > 0 and order != "random"):
            raise ValueError(
                "A slow stage takes `slow_stage`, `slowdown` above 0 and `order='random'`. "
                f"Received: slow_stage={slow_stage}, slowdown={slowdown}, order={order!r}."
            )
        if order == "skewed" and (capacity > 1 or warm_up or (max_reuse or 1) > 1):
            raise ValueError(
                "`order='skewed'` uses every batch once, from stores of one. Received: "
                f"capacity={capacity}, max_reuse={max_reuse}, warm_up={warm_up}. Leave them out."
            )
        self.capacity = int(capacity)
        self.order = order
        self.max_reuse = max_reuse
        self.warm_up = warm_up
        self.slow_stage = slow_stage
        self.slowdown = float(slowdown)

    @property
    def warm_up_steps(self) -> int:
        """Steps of each stage in a warm-up, 0 for none."""
        if self.warm_up is not None:
            return self.warm_up
        return 2 if self.capacity > 1 else 0

    @property
    def reuse_limit(self) -> int | None:
        """How often a batch may be used, `None` for any number of times."""
        return 1 if self.order == "skewed" else self.max_reuse

    def plan(self, num_stages: int, epoch: int = 0) -> tuple[int, ...]:
        """Give all stages, first to last.

        Args:
            num_stages: int ≥ 1. Stages there are.
            epoch: int ≥ 0. Every epoch is alike. Defaults to `0`.

        Returns:
            Tuple of ints, positions from 0.
        """
        del epoch
        return tuple(range(num_stages))

    def pick_weights(self, num_stages: int) -> list[float]:
        """Give how likely each stage is to be picked, up to a factor.

        Args:
            num_stages: int ≥ 1. Stages there are.

        Returns:
            List of K floats in (0, 1].

        Raises:
            ValueError: the slow stage is not among them.
        """
        if self.slow_stage is not None and self.slow_stage > num_stages:
            raise ValueError(
                f"`slow_stage` must be 1 to {num_stages}, the number of stages. "
                f"Received: slow_stage={self.slow_stage}."
            )
        return [1.0 - self.slowdown if k + 1 == self.slow_stage else 1.0 for k in range(num_stages)]

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {
            "capacity": self.capacity,
            "order": self.order,
            "max_reuse": self.max_reuse,
            "warm_up": self.warm_up,
            "slow_stage": self.slow_stage,
            "slowdown": self.slowdown,
        }
