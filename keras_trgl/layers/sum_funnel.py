"""The one way that all sums and differences of TensorFlow go, watched while a layer is called.

`+`, `+=`, `-`, `keras.ops.add`, `layers.Add` and `tf.add` of plain tensors all end in two functions
of TensorFlow, which have no public place. They are replaced here alone, by functions that ask a
handler of the thread that calls. Without one they do what they did.
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from keras_trgl.types import Tensor

KINDS = {"add_v2": "add", "sub": "subtract"}
"""The functions, and what a handler is told."""

Handler = Callable[[str, Callable[[], Tensor], Tensor, Tensor], Tensor]
"""Takes the kind, what makes the result as ever, and the two terms; gives the result."""

_lock = threading.Lock()
_watching = threading.local()
_users = 0
_plain: dict[str, Callable[..., Any]] = {}


def _functions() -> Any:
    """Give the module whose functions all sums go through.

    Raises:
        RuntimeError: this TensorFlow has no such module, or no such functions in it.
    """
    module = sys.modules.get("tensorflow.python.ops.gen_math_ops")
    if not all(callable(getattr(module, name, None)) for name in KINDS):
        raise RuntimeError(
            "Sums inside layers are found where TensorFlow 2.20 and 2.21 make them. Received: "
            f"TensorFlow {tf.__version__}, which makes them elsewhere. Use one of those, or give "
            "`residuals={}` with `on_no_residual='distance'`."
        )
    return module


@contextlib.contextmanager
def watched(handler: Handler | None) -> Iterator[None]:
    """Let a handler make the sums that this thread asks for inside the context.

    Other threads are not touched: what is put in place asks for the handler of its own thread. So
    nothing is locked while layers are called, and replicas that wait for each other cannot block.

    Args:
        handler: function of a kind, a function that makes the result, and the two terms; gives
            the result. `None` makes sums as ever, inside another context too.
    """
    before = getattr(_watching, "handler", None)
    if handler is None and before is None:
        yield
        return
    _hold()
    _watching.handler = handler
    try:
        yield
    finally:
        _watching.handler = before
        _release()


def _hold() -> None:
    global _users
    with _lock:
        if _users == 0:
            module = _functions()
            for name, kind in KINDS.items():
                _plain[name] = getattr(module, name)
                setattr(module, name, _asking(kind, _plain[name]))
        _users += 1


def _release() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            for name, plain in _plain.items():
                setattr(_functions(), name, plain)


def _asking(kind: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    def function(x: Any, y: Any, name: str | None = None) -> Any:
        handler = getattr(_watching, "handler", None)
        if handler is None:
            return plain(x, y, name)
        return handler(kind, lambda: plain(x, y, name), x, y)

    return function
