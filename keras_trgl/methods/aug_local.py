"""AugLocal: heads that are copies, in shape, of what comes later."""

from fractions import Fraction
from typing import Any

from keras_trgl.checks import check_integer
from keras_trgl.heads.blocks import BlocksHead
from keras_trgl.layers.chain import output_shape
from keras_trgl.layers.copying import copy_layer
from keras_trgl.methods.head_choice import head_units
from keras_trgl.methods.method import LocalMethod
from keras_trgl.registration import public
from keras_trgl.types import StagePlace


@public
class AugLocal(LocalMethod):
    """Stage k minimises the task loss, by a head of d blocks like those spread over later depths.

    The head after block l of U (counted from 0) has blocks like `round(l + (U − 1 − l)·i/d)`,
    i = 1…d, half to even, or like all later ones where there are no more than d; then the mean
    over positions, batch normalization where d is 1, a dense layer. Copies have weights of their
    own. Where shapes changed on the way, a copy of the block that changes them stands in, once
    for each change, as in the published code. The last stage keeps the given head, whose `units`
    are those of the others.

    In the paper every block but the last d + 1 is a stage, the stem a block of its own:
    `stage_sizes`, and `architectures.resnet(…, separate_stem=True)`.

    Args:
        depth: int ≥ 1. d, blocks in a head. Defaults to `2`.
        pyramid: bool. Whether heads get shorter with depth, down to (d + 1)/2:
            `d_k = max(1, round(d·(1 − q) + q))` with q = 0.5·(k − 1)/(K − 2). Defaults to
            `False`.

    Raises:
        TypeError: `depth` is no integer.
        ValueError: `depth` is below 1; at build, the given head has no `units`, or a block that
            is to be copied cannot be, or has its input's shape fixed.

    Example:
        >>> from keras_trgl.methods import AugLocal
        >>> method = AugLocal(depth=3, pyramid=True)
        >>> method.stage_sizes(num_blocks=16)[-3:], method.stage_depth(12, num_stages=13)
        ([1, 1, 4], 2)

    Reference:
        Ma et al., "Scaling Supervised Local Learning with Augmented Auxiliary Networks", ICLR
        2024, section 4, equations 3 and 4.
    """

    loss_names = ()
    always_shown = ("depth",)

    def __init__(self, depth: int = 2, pyramid: bool = False) -> None:
        check_integer("depth", depth, 1, "For heads without blocks use `VanGL()`.")
        self.depth = int(depth)
        self.pyramid = bool(pyramid)

    def stage_sizes(self, num_blocks: int) -> list[int]:
        """Give the paper's stages: one block each, but the last d + 1 together.

        Args:
            num_blocks: int > d. U, blocks of the network.

        Returns:
            List of U − d ints that sum to U.

        Raises:
            ValueError: there are no more than d blocks.
        """
        check_integer("num_blocks", num_blocks, self.depth + 1)
        return [1] * (num_blocks - self.depth - 1) + [self.depth + 1]

    def stage_depth(self, depth: int, num_stages: int) -> int:
        """Give the number of blocks that a stage's head asks for.

        Args:
            depth: int, k = 1…K − 1.
            num_stages: int ≥ 2, K.

        Returns:
            int ≥ 1.
        """
        if not self.pyramid or num_stages <= 2:
            return self.depth
        share = Fraction(depth - 1, 2 * (num_stages - 2))
        return max(1, round(self.depth * (1 - share) + share))

    def picks(self, stage: StagePlace) -> list[int]:
        """Give the blocks that a stage's head is like.

        Args:
            stage: `StagePlace`, where the stage stands.

        Returns:
            List of positions in the network, from 0.
        """
        here, left = stage.last_block, len(stage.later_blocks)
        depth = self.stage_depth(stage.depth, stage.num_stages)
        if depth >= left:
            return list(range(here + 1, here + 1 + left))
        return [round(here + Fraction(left * i, depth)) for i in range(1, depth + 1)]

    def stage_head(self, stage: StagePlace, head: Any) -> Any:
        """Give copies of later blocks below the last stage, and there the given head."""
        if stage.is_last:
            return head
        units, picks = head_units(stage, self, head), self.picks(stage)
        return BlocksHead(units, self._copies(stage, picks), normalize=len(picks) <= 1)

    def _copies(self, stage: StagePlace, picks: list[int]) -> list[Any]:
        """Give copies of blocks, in a row that fits together."""
        shape, changes = stage.feature_shape, []
        for index, block in enumerate(stage.later_blocks, start=stage.last_block + 1):
            after = output_shape(block, shape)
            if tuple(after[1:]) != tuple(shape[1:]):
                changes.append(index)
            shape = after
        copies, owed, before = [], 0, stage.last_block
        shape = stage.feature_shape
        for pick in picks:
            owed += sum(before < change <= pick for change in changes)
            # Where changes were passed the latest one gives the pick's channels, and halves the
            # sides; what is still owed is made up for by the copies after it.
            source = max(change for change in changes if change <= pick) if owed else pick
            owed, before = max(0, owed - 1), pick
            copies.append(self._copy(stage, source, shape))
            shape = output_shape(copies[-1], shape)
        return copies

    def _copy(self, stage: StagePlace, position: int, shape: Any) -> Any:
        block = stage.later_blocks[position - stage.last_block - 1]
        fixed = getattr(block, "input_shape", None) if getattr(block, "inputs", None) else None
        if fixed is not None and tuple(fixed[1:]) != tuple(shape[1:]):
            raise _refusal(stage, block, f"takes inputs {tuple(fixed)} alone, not {tuple(shape)}")
        try:
            return copy_layer(block, f"like_{block.name}")
        except ValueError as error:
            why = str(error.__cause__ or error).split(" (")[0]
            raise _refusal(stage, block, why) from error

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {"depth": self.depth, "pyramid": self.pyramid}


def _refusal(stage: StagePlace, block: Any, why: str) -> ValueError:
    return ValueError(
        "AugLocal copies later blocks, which must fit other shapes than their own. Received, for "
        f"the head of stage {stage.depth}: {block.name} of type {type(block).__name__}, which "
        f"{why}. Give unbuilt blocks, as `architectures` make them."
    )
