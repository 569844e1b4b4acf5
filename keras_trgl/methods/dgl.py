"""DGL, decoupled greedy learning: better auxiliary heads."""

import functools
from typing import Any

from keras_trgl.heads.dgl import KINDS, DGLHead
from keras_trgl.methods.head_choice import check_head, head_config, head_of, make_head
from keras_trgl.methods.method import LocalMethod
from keras_trgl.registration import public
from keras_trgl.types import StagePlace

HEADS = {kind: functools.partial(DGLHead, kind=kind) for kind in KINDS}


@public
class DGL(LocalMethod):
    """Stage k minimises the task loss, by a head of the paper's below the last stage.

    The last stage keeps the head that is given, the network's own classifier; its `units` are
    those of the others. `Parallel` is the paper's synchronous form, `Buffered` the asynchronous.

    Args:
        head: `"mlp-sr"`, `"mlp"` or `"cnn"`, kinds of `heads.DGLHead`; or an unbuilt layer, copied
            for every stage below the last: with the head that is given, DGL is `VanGL`. Defaults
            to `"mlp-sr"`.

    Raises:
        ValueError: `head` is another word, or a built layer; at build, the given head has no
            `units`, or features are no images of known size.
        TypeError: `head` is neither a word nor a layer.

    Example:
        >>> import keras_trgl as trgl
        >>> blocks = trgl.architectures.resnet(depth=8, input_shape=(8, 8, 1))
        >>> model = trgl.GreedyModel.from_blocks(
        ...     blocks, [2, 1], trgl.heads.LinearHead(units=3), method=trgl.methods.DGL())
        >>> [type(head).__name__ for head in model.heads]
        ['DGLHead', 'LinearHead']

    Reference:
        Belilovsky et al., "Decoupled Greedy Learning of CNNs", 2020, algorithms 1 and 2.
    """

    loss_names = ()

    def __init__(self, head: Any = "mlp-sr") -> None:
        check_head(head, HEADS)
        self.head = head

    def stage_head(self, stage: StagePlace, head: Any) -> Any:
        """Give the paper's head below the last stage, and there the given one."""
        return head if stage.is_last else make_head(self.head, HEADS, stage, self, head)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {"head": head_config(self.head)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DGL":
        """Make the method from `get_config`'s result."""
        return cls(**{**config, "head": head_of(config["head"])})
