"""One training: a method, its numbers, a seed, a part of the data that it is judged on."""

import dataclasses
import math
import time
from typing import Any

import keras

from keras_trgl.compare.settings import CHOICE_SEED, HELD_OUT, Settings
from keras_trgl.compare.spaces import RATE, make_method
from keras_trgl.greedy_model import GreedyModel


@dataclasses.dataclass(frozen=True)
class Training:
    """What determines a training.

    Attributes:
        method: str. Its name.
        numbers: dict of `"learning_rate"` and the method's own numbers.
        seed: int ≥ 0. Of weights and of the order of the data.
        part: `"validation"`, held-out training images, or `"test"`.
        place: int ≥ 1. Which trial, or which seed, of how many it is.
    """

    method: str
    numbers: dict[str, Any]
    seed: int
    part: str
    place: int

    def __str__(self) -> str:
        numbers = ", ".join(f"{key} {value:g}" for key, value in self.numbers.items())
        what = f"trial {self.place}" if self.part == "validation" else f"seed {self.seed}"
        return f"{self.method}, {what} ({numbers})"


def make_model(settings: Settings, training: Training, data: Any) -> GreedyModel:
    """Give the compiled network of a training.

    Args:
        settings: `Settings`.
        training: `Training`.
        data: `ImageData`.
    """
    numbers = dict(training.numbers)
    rate = numbers.pop(RATE)
    method = make_method(training.method, numbers, data)
    model = settings.make(data, method, training.seed)
    steps = settings.epochs * math.ceil(len(data.y_train) / settings.batch_size)
    model.compile(
        keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(rate, steps), momentum=0.9),
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=settings.smoothing),
        metrics=["accuracy"],
    )
    return model


def stream_of(settings: Settings, data: Any, seed: int) -> Any:
    """Give the training part as batches."""
    return data.stream(settings.batch_size, seed=seed, augment=settings.augment, one_hot=True)


def without_test(data: Any) -> Any:
    """Give data whose test part are the held-out training images, so that nobody reads the other.

    Args:
        data: `ImageData`.
    """
    held = data.hold_out(HELD_OUT, seed=CHOICE_SEED)
    return dataclasses.replace(held, x_test=held.x_validation, y_test=held.y_validation)


def train(settings: Settings, training: Training, data: Any) -> dict[str, Any]:
    """Train, judge, and give what came out.

    A training whose loss stops being finite is judged by the weights it had before that step.

    Args:
        settings: `Settings`.
        training: `Training`.
        data: `ImageData`, whole; a trial is given no test image.
    """
    begin = time.perf_counter()
    if training.part == "validation":
        data = without_test(data)
    model = make_model(settings, training, data)
    diverged, history = None, {}
    try:
        stream = stream_of(settings, data, training.seed)
        history = model.fit(stream, epochs=settings.epochs, verbose=0).history
    except ValueError as error:
        if "finite" not in str(error):
            raise
        diverged = str(error).splitlines()[0]
    trained = time.perf_counter()
    x, y = data.arrays(training.part)
    y = keras.utils.to_categorical(y, data.num_classes)
    logs = model.evaluate(x, y, batch_size=256, return_dict=True, verbose=0)
    depths = range(1, model.num_stages + 1)
    accuracy = [logs.get(f"stage_{k}_accuracy") for k in depths]
    late = [history.get(f"stage_{k}_staleness", [0.0])[-1] for k in depths]
    result = {
        "accuracy_by_depth": [None if one is None else float(one) for one in accuracy],
        "accuracy": float(logs["accuracy"]),
        # JSON has no number for it.
        "loss": float(logs["loss"]) if math.isfinite(logs["loss"]) else None,
        "staleness_by_depth": [float(one) for one in late],
        "diverged": diverged,
        "fit_seconds": trained - begin,
        "seconds": time.perf_counter() - begin,
    }
    # The next training in this process begins with an empty session.
    keras.utils.clear_session()
    return result
