"""Which layers are alike, so that one of them stands for all."""

from typing import Any

from keras_trgl.layers.inner import config_of


def kind_of(layer: Any, *more: Any) -> str:
    """Give a text that is the same for layers that are alike.

    Args:
        layer: Keras layer.
        *more: what else must be the same, as the shape of its input.
    """
    config = config_of(layer)
    # What tells nothing of itself is a kind of its own.
    told = (id(layer),) if config is None else (type(layer).__qualname__, _nameless(config))
    return repr((told, *more))


def _nameless(value: Any) -> Any:
    """Give a configuration without what makes no difference in time."""
    if isinstance(value, dict):
        left_out = ("name", "seed", "build_config", "input_shape")
        return {key: _nameless(one) for key, one in value.items() if key not in left_out}
    if isinstance(value, (list, tuple)):
        return [_nameless(one) for one in value]
    return value
