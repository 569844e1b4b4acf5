"""What an export can be told: how data come in, what predictions are, what a server gets."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_trgl.checks import check_choice, check_integer
from keras_trgl.recording import shown
from keras_trgl.registration import public

NAME = r"[\w.-]+"
"""What TensorFlow Serving takes as a model's name, in ASCII."""

SENT = ("float32", "uint8", "int32", "int64", "string")
"""Types of what a client may send."""

PREDICTIONS = ("logits", "probabilities", "values")


@public
@dataclasses.dataclass(frozen=True, repr=False)
class Inputs:
    """How data come in, and how they become what the model was trained on.

    Args:
        dtype: `"float32"`, `"uint8"`, `"int32"`, `"int64"` or `"string"`: the type of what a
            client sends. `None` is what the model takes: whole numbers or text where a layer of
            those comes first, else `"float32"`. Defaults to `None`.
        preprocess: function of a tensor `(batch, …)`, or a Keras layer, that gives the
            model's input; row by row, made of TensorFlow or `keras.ops` operations. It gets
            float32 where `"float32"` or `"uint8"` is sent. It becomes part of the exported
            model. `None` changes nothing. Defaults to `None`.
        shape: tuple of int or `None`: the shape of one example that a client sends, where
            `preprocess` changes it. `None` means the model's input shape. Defaults to `None`.
        encoded: bool. Whether to add a signature `encoded` that takes JPEG, PNG, BMP or GIF
            bytes and resizes each image to `shape`. Defaults to `False`.

    Raises:
        ValueError: another `dtype`.
        TypeError: `preprocess` cannot be called.

    Example:
        >>> import keras_trgl as trgl
        >>> data = trgl.datasets.load("digits")
        >>> normalize = trgl.datasets.Normalize(data.mean, data.std)
        >>> trgl.export.Inputs(dtype="uint8", preprocess=normalize).dtype
        'uint8'
    """

    dtype: str | None = None
    preprocess: Callable[[Any], Any] | None = None
    shape: tuple[int, ...] | None = None
    encoded: bool = False

    def __post_init__(self) -> None:
        check_choice("dtype", self.dtype, (None, *SENT))
        if self.preprocess is not None and not callable(self.preprocess):
            raise TypeError(
                "`preprocess` must be a function of a tensor, or a Keras layer. "
                f"Received: preprocess={self.preprocess!r}."
            )

    def __repr__(self) -> str:
        return shown(self)


@public
@dataclasses.dataclass(frozen=True, repr=False)
class Outputs:
    """What the heads predict, and what a client is told of it.

    Args:
        predictions: str, what the heads give. `"logits"`: `logits`, `probabilities` (softmax;
            sigmoid for a single unit) and `class_id` come out. `"probabilities"`: the same
            without `logits`. `"values"` (a regression): `values` alone. Defaults to `"logits"`.
        class_names: sequence of str, one per class, for an output `label`. Defaults to `None`.
        thresholds: float, or sequence of K − 1 floats, or `None`. A row leaves `confident_exit`
            at depth k < K when the probability of its likeliest class is at least the k-th;
            0 stops every row there, above 1 none. `None` leaves that signature out. Defaults
            to `None`.
        default_exit: int, 1…K, or `None`: the depth of `serving_default`. `None` means K.
            Defaults to `None`.
        temperatures: sequence of K floats > 0, or `None`. Logits of depth k are divided by the
            k-th, which changes probabilities and confidence, not classes. `None` is 1 for all.
            Defaults to `None`.
        average: bool. Whether depth k predicts the mean of the probabilities of depths 1…k.
            Defaults to `False`.

    Raises:
        ValueError: another `predictions`; thresholds, class names, temperatures or an average
            for a regression; temperatures that are not above zero.

    Example:
        >>> from keras_trgl.export import Outputs
        >>> Outputs(class_names=["cat", "dog"], thresholds=0.9).thresholds
        0.9
    """

    predictions: str = "logits"
    class_names: Sequence[str] | None = None
    thresholds: float | Sequence[float] | None = None
    default_exit: int | None = None
    temperatures: Sequence[float] | None = None
    average: bool = False

    def __post_init__(self) -> None:
        check_choice("predictions", self.predictions, PREDICTIONS)
        of_classes = {
            name: getattr(self, name)
            for name in ("thresholds", "class_names", "temperatures", "average")
            if getattr(self, name) not in (None, False)
        }
        if self.predictions == "values" and of_classes:
            raise ValueError(
                "Values have neither classes nor confidence. Received: predictions='values' with "
                f"{', '.join(f'{name}={value}' for name, value in of_classes.items())}. Leave "
                "them out."
            )
        if self.temperatures is not None and not all(0 < one < np.inf for one in self.temperatures):
            raise ValueError(
                f"`temperatures` must be above zero. Received: temperatures={self.temperatures}. "
                "1 leaves a depth as it is."
            )

    def __repr__(self) -> str:
        return shown(self)

    def threshold_list(self, num_stages: int) -> tuple[float, ...] | None:
        """Give a threshold per depth before the last.

        Args:
            num_stages: int ≥ 1, K.

        Returns:
            Tuple of K − 1 floats, or `None`.

        Raises:
            ValueError: another number of them, or one that is no number.
        """
        if self.thresholds is None:
            return None
        given = np.asarray(self.thresholds, "float64")
        values = np.full(num_stages - 1, given) if given.ndim == 0 else given
        if values.shape != (num_stages - 1,) or not np.isfinite(values).all():
            raise ValueError(
                f"`thresholds` must be a number, or one per depth before the last: "
                f"{num_stages - 1} for {num_stages} stages. Received: "
                f"thresholds={self.thresholds}. `choose_exit(…).thresholds` has as many."
            )
        return tuple(float(value) for value in values)

    def check_temperatures(self, num_stages: int) -> None:
        """Raise unless there are as many temperatures as depths.

        Args:
            num_stages: int ≥ 1, K.

        Raises:
            ValueError: another number.
        """
        if self.temperatures is not None and len(self.temperatures) != num_stages:
            raise ValueError(
                f"`temperatures` must be one per depth, {num_stages}. Received: "
                f"{len(self.temperatures)}. `choose_exit(…).temperatures` has as many."
            )

    def check_classes(self, units: int) -> None:
        """Raise unless there are as many class names as classes.

        Args:
            units: int ≥ 1. Numbers in a prediction; a single one tells two classes.

        Raises:
            ValueError: another number.
        """
        classes = 2 if units == 1 else units
        if self.class_names is not None and len(self.class_names) != classes:
            raise ValueError(
                f"`class_names` must be as many as classes, {classes}. Received: "
                f"{len(self.class_names)} names."
            )


@public
@dataclasses.dataclass(frozen=True, repr=False)
class ServerFiles:
    """Files for a server beside the model itself.

    Args:
        warmup: sequence of int: batch sizes of the requests that TensorFlow Serving replays when
            it loads the version, for every signature; empty writes none. Takes the extra
            `[serving]`. Defaults to `()`.
        model_name: str or `None`: name of the model in `models.config`, letters, digits, `_`,
            `-`, `.`; `None` means the base folder's. Defaults to `None`.
        model_config: bool. Whether to write `models.config` into the base folder. Defaults to
            `True`.
        base_path: str or `None`: where the server sees the base folder; `None` means
            `/models/NAME`, as in the container of TensorFlow Serving. Defaults to `None`.
        labels: dict of label to version, for versions that are there or being exported; those
            alone are then served. `None` serves the newest version. Defaults to `None`.

    Raises:
        ValueError: a batch size below 1, or more than 16 of them; a name or label with other
            characters.

    Example:
        >>> from keras_trgl.export import ServerFiles
        >>> ServerFiles(warmup=(1, 8), labels={"stable": 1}).labels
        {'stable': 1}
    """

    warmup: Sequence[int] = ()
    model_name: str | None = None
    model_config: bool = True
    base_path: str | None = None
    labels: dict[str, int] | None = None

    def __post_init__(self) -> None:
        for size in self.warmup:
            check_integer("warmup", size, 1, "Give batch sizes, such as `warmup=(1, 8)`.")
        if len(self.warmup) > 16:
            raise ValueError(
                "`warmup` must be at most 16 batch sizes: a server replays all of them for every "
                f"signature before it serves. Received: {len(self.warmup)}."
            )
        if self.model_name is not None and not re.fullmatch(NAME, self.model_name, re.ASCII):
            raise ValueError(
                "`model_name` must be made of letters, digits, `_`, `-` and `.`. Received: "
                f"model_name={self.model_name!r}."
            )
        for label in self.labels or {}:
            if not re.fullmatch(r"\w+", label, re.ASCII):
                raise ValueError(
                    "A label must be made of letters, digits and `_`. Received: "
                    f"labels={self.labels}."
                )

    def __repr__(self) -> str:
        return shown(self)
