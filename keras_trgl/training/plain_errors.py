"""Errors of a user's own code as they are, without what Keras writes around them."""

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Let errors inside a layer's call pass unchanged.

    Keras adds the layer's name and its arguments, which speak of a layer that the user never saw.
    """
    filters = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    try:
        yield
    except Exception as error:
        # What Keras says of a layer that it cannot ask for a shape; the cause is behind it.
        if "Could not automatically infer" in str(error) and error.__context__ is not None:
            raise error.__context__ from None
        raise
    finally:
        if filters:
            keras.config.enable_traceback_filtering()
