"""The one way that all sums and differences of TensorFlow go, watched while a layer is called.

`+`, `+=`, `-`, `keras.ops.add`, `layers.Add` and `tf.add` of plain tensors all end in two functions
of TensorFlow, which have no public place. They are replaced here alone, by functions that ask a
handler of the thread that calls. Without one they do what they did.

A single example is a case of its own: Keras takes the second term of a sum of shape
`(1, …, 1, channels)` for a bias, squeezes it, and adds it as one. That is seen too.
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

PLACES = {
    "add_v2": "gen_math_ops",
    "sub": "gen_math_ops",
    "squeeze": "gen_array_ops",
    "bias_add": "gen_nn_ops",
}
"""All functions that are replaced, and the modules that they are in."""

Handler = Callable[[str, Callable[[], Tensor], Tensor, Tensor], Tensor]
"""Takes the kind, what makes the result as ever, and the two terms; gives the result."""

_lock = threading.Lock()
_watching = threading.local()
_users = 0
_plain: dict[str, Callable[..., Any]] = {}


def _module(name: str) -> Any:
    """Give the module of a function that sums go through.

    Raises:
        RuntimeError: this TensorFlow has no such module, or no such function in it.
    """
    module = sys.modules.get(f"tensorflow.python.ops.{PLACES[name]}")
    if not callable(getattr(module, name, None)):
        raise RuntimeError(
            "Sums inside layers are found where TensorFlow 2.20 and 2.21 make them. Received: "
            f"TensorFlow {tf.__version__}, which makes them elsewhere. Use one of those."
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
    before, squeezed = getattr(_watching, "handler", None), getattr(_watching, "squeezed", {})
    if handler is None and before is None:
        yield
        return
    _hold()
    _watching.handler, _watching.squeezed = handler, {}
    try:
        yield
    finally:
        _watching.handler, _watching.squeezed = before, squeezed
        _release()


def _hold() -> None:
    global _users
    with _lock:
        if _users == 0:
            modules = {name: _module(name) for name in PLACES}
            for name, module in modules.items():
                _plain[name] = getattr(module, name)
                setattr(module, name, _REPLACED.get(name) or _asking(name))
        _users += 1


def _release() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            for name, plain in _plain.items():
                setattr(_module(name), name, plain)


def _handler() -> Handler | None:
    return getattr(_watching, "handler", None)


def _asking(name: str) -> Callable[..., Any]:
    """Give what stands in for a sum or a difference."""

    def function(x: Any, y: Any, name: str | None = None) -> Any:
        handler = _handler()
        if handler is None:
            return plain(x, y, name)
        return handler(kind, lambda: plain(x, y, name), x, y)

    plain, kind = _plain[name], KINDS[name]
    return function


def _squeeze(*args: Any, **kwargs: Any) -> Any:
    """Squeeze, and remember of what, as it may be a term of a sum."""
    made = _plain["squeeze"](*args, **kwargs)
    if _handler() is not None:
        # Both are held, so that no other tensor gets their identity meanwhile.
        _watching.squeezed[id(made)] = (made, args[0] if args else kwargs["input"])
    return made


def _bias_add(value: Any, bias: Any, *args: Any, **kwargs: Any) -> Any:
    """Add a bias, or, where it is a squeezed term of the other's shape, make it a sum again."""
    handler, (_, term) = _handler(), _squeezed(bias)
    if handler is None or term is None or value.shape != term.shape:
        return _plain["bias_add"](value, bias, *args, **kwargs)
    return handler("add", lambda: _plain["add_v2"](value, term), value, term)


def _squeezed(bias: Any) -> tuple[Any, Any]:
    found: tuple[Any, Any] = getattr(_watching, "squeezed", {}).get(id(bias), (None, None))
    return found


_REPLACED: dict[str, Callable[..., Any]] = {"squeeze": _squeeze, "bias_add": _bias_add}
