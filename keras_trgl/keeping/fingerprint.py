"""What makes a run the run that it is, as plain numbers and texts that a backup holds.

Method, regime, optimizer, loss, stages and data are told by their configurations. Left out are
names that Keras gives (they count what a process made before), functions' own serialization
(lambdas are bytes of code), and seeds and initializers of layers, which a restored run does not
use. What a layer fills in as it is built is told as before: a run may begin with an unbuilt model
and go on with a built one.
"""

import contextlib
import hashlib
import json
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import keras

COMPILED: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()
"""By optimizer: how it was compiled, before any callback moved a rate."""

LEFT_OUT = {
    "name",
    "module",
    "registered_name",
    "build_config",
    "compile_config",
    "shared_object_id",
}
NOT_USED_AGAIN = {"seed", "batch_input_shape", "batch_shape", "build_input_shape"}
UNTELLABLE = (TypeError, ValueError, NotImplementedError, AttributeError, RuntimeError, OSError)
"""What Keras raises where something cannot be serialized."""


def fingerprint(model: Any, data: dict[str, Any]) -> dict[str, Any]:
    """Give what a run of this model on these data is told by.

    Args:
        model: compiled `GreedyModel`, before its callbacks have begun.
        data: dict of what tells the data and their order.

    Returns:
        Dict that JSON can hold; a run goes on from a backup only if the two are equal.
    """
    if model.optimizer not in COMPILED:
        COMPILED[model.optimizer] = _compiled(model)
    with model.distribute_strategy.scope():
        replicas = model.distribute_strategy.num_replicas_in_sync
    return _as_json(
        {
            "method": plain(model.method),
            "regime": plain(model.regime),
            "stage": [_digest(stage) for stage in model.stages],
            "head": [_digest(head) for head in model.heads],
            "precision": [model.dtype_policy.name, keras.config.floatx()],
            "replicas": int(replicas),
            **COMPILED[model.optimizer],
            "data": data,
        }
    )


def _compiled(model: Any) -> dict[str, Any]:
    """Give how a model was compiled."""
    with _quiet():
        try:
            config = model.get_compile_config()
        except UNTELLABLE:
            # A loss or metric that cannot be saved: the optimizers still tell theirs.
            config = {}
    settings = {
        name: _plain(value, set())
        for name, value in config.items()
        if name not in ("optimizer", "steps_per_execution")
    }
    optimizers = [plain(one) for one in model.optimizer.optimizers]
    if all(one == optimizers[0] for one in optimizers):
        return {**settings, "optimizer": optimizers[0]}
    return {**settings, "optimizers": optimizers}


def plain(value: Any) -> Any:
    """Give a configuration without what differs between processes or is not used again."""
    with _quiet():
        try:
            config = keras.saving.serialize_keras_object(value)
        except UNTELLABLE:
            return type(value).__name__
    return _plain(config, _given_names(config))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what Keras says of lambdas: nothing here is loaded again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _given_names(config: Any) -> set[str]:
    """Give the names of layers, which may be automatic, in a configuration."""
    if isinstance(config, (list, tuple)):
        return set().union(*map(_given_names, config))
    if not isinstance(config, dict) or config.get("class_name") == "DTypePolicy":
        return set()
    found = set().union(*map(_given_names, config.values()))
    name = config.get("name")
    return found | {name} if isinstance(name, str) and "class_name" not in config else found


def _plain(config: Any, names: set[str]) -> Any:
    if isinstance(config, (list, tuple)):
        return [_plain(one, names) for one in config]
    if isinstance(config, str) and config in names:
        return "a layer"
    if not isinstance(config, dict):
        return config if isinstance(config, (bool, int, float, str, type(None))) else repr(config)
    name, held = config.get("class_name"), config.get("config", {})
    if config.keys() == {"value"} and isinstance(config["value"], (list, tuple)):
        return "function"  # The bytes of a lambda.
    if name in ("__lambda__", "function"):
        return held if name == "function" and isinstance(held, str) else "function"
    if name == "DTypePolicy":
        return str(held["name"])
    if name is not None and "config" in config:
        inner = _plain(_unbuilt(config), names)
        return {"is": name, **inner} if isinstance(inner, dict) else {"is": name, "of": inner}
    if "layers" in config and "input_layers" in config:
        # Nodes go by names.
        config = {
            "layers": [{k: one[k] for k in ("class_name", "config")} for one in config["layers"]]
        }
    return {
        "a layer" if key in names else str(key): _plain(one, names)
        for key, one in config.items()
        if not _is_left_out(str(key))
    }


def _unbuilt(config: dict[str, Any]) -> Any:
    """Give a layer's own configuration as it was before the layer was built."""
    held = config["config"]
    if not isinstance(held, dict):
        return held
    told = dict(held)
    if "data_format" in told and told["data_format"] is None:
        told["data_format"] = keras.config.image_data_format()
    # Normalizations make a list of their axis.
    if isinstance(told.get("axis"), (list, tuple)) and len(told["axis"]) == 1:
        told["axis"] = told["axis"][0]
    # A `Sequential` puts an input before its layers; one of a graph is a layer as any other.
    if isinstance(told.get("layers"), (list, tuple)) and "input_layers" not in told:
        told["layers"] = [one for one in told["layers"] if not _is_input(one)]
    # Attention that was given no axes takes all between batch and features.
    if told.get("attention_axes"):
        shapes = (config.get("build_config") or {}).get("shapes_dict", {})
        between = range(1, len(shapes.get("query_shape", ())) - 1)
        if list(told["attention_axes"]) == list(between):
            told["attention_axes"] = None
    return told


def _is_input(config: Any) -> bool:
    return isinstance(config, dict) and config.get("class_name") == "InputLayer"


def _is_left_out(key: str) -> bool:
    return key in LEFT_OUT or key in NOT_USED_AGAIN or key.endswith("_initializer")


def _digest(layer: Any) -> str:
    text = json.dumps(plain(layer), sort_keys=True, default=repr)
    return f"layers #{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=repr))


def differences(saved: Any, now: Any, where: str = "") -> list[str]:
    """Give a text for each place in which two fingerprints differ."""
    if isinstance(saved, dict) and isinstance(now, dict) and saved.get("is") == now.get("is"):
        return [
            text
            for key in [*saved, *(key for key in now if key not in saved)]
            for text in differences(
                saved.get(key), now.get(key), f"{where}.{key}" if where else key
            )
        ]
    if isinstance(saved, list) and isinstance(now, list) and len(saved) == len(now):
        return [
            text
            for place, pair in enumerate(zip(saved, now, strict=True), start=1)
            for text in differences(*pair, f"{where} {place}")
        ]
    if type(saved) is type(now) and (saved == now or (saved != saved and now != now)):
        return []
    return [f"{where} {_short(saved)} in the backup, {_short(now)} now"]


def _short(value: Any) -> str:
    if isinstance(value, dict) and "is" in value:
        return str(value["is"])
    if isinstance(value, float):
        return repr(float(f"{value:.7g}"))
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
