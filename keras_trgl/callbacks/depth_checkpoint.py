"""The best depth of a training, kept as a model of its own."""

import math
import re
from numbers import Real
from pathlib import Path
from typing import Any

import keras

from keras_trgl.callbacks.monitors import mode_of, trained_depths
from keras_trgl.checks import check_choice, check_integer, path_of
from keras_trgl.keeping.saving import saved_aside
from keras_trgl.network.no_head import NoHead
from keras_trgl.progress import tell
from keras_trgl.recording import shown
from keras_trgl.registration import public


@public
class DepthCheckpoint(keras.callbacks.Callback):
    """Keeps the best depth so far, as its truncated model F_k∘G_k.

    Depths are compared by what the logs have of each: `monitor="val_accuracy"` reads
    `val_stage_k_accuracy` for k = 1…K. Whenever one is better than all before, of any depth and
    epoch, `model.truncate(k)` is written: a plain Keras model without the stages after it. Of
    equal depths the smallest is taken. Depths that have not trained yet do not count, so it works
    in every regime, and where stages train in turn the best is that of the whole run.

    It is `keras.callbacks.ModelCheckpoint(save_best_only=True)` for depths, and takes its
    arguments. Files are written aside and renamed: whole or absent. `BackupAndRestore` keeps
    `best` and `best_depth`. Choose on validation data: the best of several depths and epochs on
    test data is no estimate.

    Args:
        filepath: str or path, ending in `.keras`, or in `.weights.h5` with `save_weights_only`.
            It may have `{depth}`, `{epoch:02d}` and names of the logs in it, and then files of
            earlier bests stay. Its folder is made if missing.
        monitor: str. Name of the last depth's entry in the logs, without `stage_k_`. Defaults to
            `"val_accuracy"`.
        verbose: int. 1 tells of each epoch whether it was better. Defaults to `0`.
        save_weights_only: bool. Whether the weights of F_k∘G_k alone are written. Defaults to
            `False`.
        mode: `"min"`, `"max"` or `"auto"`, by the metric. Defaults to `"auto"`.
        save_freq: `"epoch"`, or int ≥ 1: compare after every epoch, or every so many batches, by
            the training data's entries. Defaults to `"epoch"`.
        initial_value_threshold: float, in the unit of `monitor`: what must be beaten first.
            Defaults to `None`.

    Attributes:
        best: float or `None`. The best value so far.
        best_depth: int or `None`. Its depth, 1…K; `None` while none has beaten the threshold.

    Raises:
        TypeError: in `fit`, a model without stages.
        ValueError: another ending, word or number; in `fit`, no validation data for it, no such
            entry in the logs, or a method that trains no heads below the last stage.

    Example:
        >>> import keras, numpy as np, os, tempfile, keras_trgl as trgl
        >>> model = trgl.GreedyModel.from_blocks(
        ...     [keras.layers.Dense(3)], [1], trgl.heads.LinearHead(2), method="vangl", seed=0)
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     keep = trgl.callbacks.DepthCheckpoint(os.path.join(folder, "a.keras"), "loss")
        ...     history = model.fit(np.ones((8, 3)), np.zeros(8), callbacks=[keep], verbose=0)
        >>> keep.best_depth
        1
    """

    def __init__(
        self,
        filepath: Any,
        monitor: str = "val_accuracy",
        verbose: int = 0,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: Any = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__()
        self.filepath = str(path_of("filepath", filepath))
        ending = ".weights.h5" if save_weights_only else ".keras"
        if not self.filepath.endswith(ending):
            raise ValueError(
                f"`filepath` must end in {ending!r}. Received: filepath={self.filepath!r}, "
                f"save_weights_only={save_weights_only}. Give it that ending."
            )
        if not isinstance(monitor, str):
            raise TypeError(
                "`monitor` must name an entry of the logs. Received: "
                f"monitor={monitor!r}. Pass 'val_accuracy' or 'val_loss', for example."
            )
        if re.match(r"(val_)?stage_\d+_", monitor):
            plain = re.sub(r"stage_\d+_", "", monitor, count=1)
            raise ValueError(
                "`monitor` must name what every depth has. Received: "
                f"monitor={monitor!r}, of one depth. Use {plain!r}; to keep one depth use "
                "`keras.callbacks.ModelCheckpoint`."
            )
        threshold: Any = initial_value_threshold
        if threshold is not None and not isinstance(threshold, Real):
            raise TypeError(
                "`initial_value_threshold` must be a number or None. Received: "
                f"initial_value_threshold={initial_value_threshold!r}. Pass a float."
            )
        check_choice("mode", mode, ("auto", "min", "max"))
        if save_freq != "epoch":
            if isinstance(save_freq, str) or monitor.startswith("val_"):
                raise ValueError(
                    "`save_freq` must be 'epoch', or a number of batches where `monitor` is of the "
                    f"training data. Received: save_freq={save_freq!r}, monitor={monitor!r}."
                )
            check_integer("save_freq", save_freq, 1)
        self.monitor = monitor
        self.verbose = verbose
        self.save_weights_only = bool(save_weights_only)
        self.mode = mode
        self.save_freq = save_freq
        self.initial_value_threshold = initial_value_threshold
        self.best = initial_value_threshold
        self.best_depth: int | None = None
        self._compared_at = 0

    def __repr__(self) -> str:
        return shown(self)

    @property
    def needs_validation(self) -> bool:
        """Whether `fit` must have validation data."""
        return self.monitor.startswith("val_")

    def get_state(self) -> dict[str, Any]:
        """Give what a backup keeps.

        Returns:
            dict.
        """
        state = {"best": self.best, "best_depth": self.best_depth}
        return {**state, "compared_at": self._compared_at}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from `get_state`'s result.

        Args:
            state: dict, as `get_state` gave it.
        """
        self.best, self.best_depth = state["best"], state["best_depth"]
        self._compared_at = state["compared_at"]

    def set_model(self, model: Any) -> None:
        """Take the model.

        Raises:
            TypeError: it has no stages.
            ValueError: only its last depth predicts, of several.
        """
        if not hasattr(model, "stages") or not hasattr(model, "training_run"):
            raise TypeError(
                f"`DepthCheckpoint` compares depths. Received: {model!r}. Train a `GreedyModel`, "
                "or use `keras.callbacks.ModelCheckpoint`."
            )
        without = [one.depth for one in model.heads if isinstance(one, NoHead)]
        if without and len(model.heads) - len(without) < 2:
            raise ValueError(
                "`DepthCheckpoint` compares depths, so two at least must predict. Received: "
                f"{model.method!r}, which trains no head at depth {', '.join(map(str, without))}. "
                "Use `keras.callbacks.ModelCheckpoint`."
            )
        super().set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Count the run's batches anew."""
        self._compared_at = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Compare, if it is time; called once per `steps_per_execution` batches."""
        if self.save_freq == "epoch":
            return
        run = self.model.training_run
        if run.steps_done // self.save_freq > self._compared_at // self.save_freq:
            self._compared_at = run.steps_done
            self._compare(run.epoch, logs or {})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Compare, and write the best depth if it is new."""
        if self.save_freq == "epoch":
            self._compare(epoch, logs or {})

    def _compare(self, epoch: int, logs: dict[str, Any]) -> None:
        prefix = "val_" if self.needs_validation else ""
        if prefix and not any(key.startswith(prefix) for key in logs):
            return  # `validation_freq` leaves epochs out.
        name = self.monitor.removeprefix(prefix)
        keys = {k: f"{prefix}stage_{k}_{name}" for k in range(1, self.model.num_stages + 1)}
        values = {k: float(logs[key]) for k, key in keys.items() if key in logs}
        if not values:
            raise ValueError(self._not_there(logs))
        trained = trained_depths(self.model) or values.keys()
        values = {k: v for k, v in values.items() if k in trained and not math.isnan(v)}
        sign = 1 if self._mode(name) == "min" else -1
        depth = min(values, key=lambda k: sign * values[k], default=None)
        if depth is None:
            return
        place = f"\nEpoch {epoch + 1}: {self.monitor}"
        before = "None" if self.best is None else f"{self.best:.5f}"
        if self.best is not None and sign * values[depth] >= sign * self.best:
            if self.verbose:
                tell(f"{place} of no depth improved from {before}")
            return
        path = self._path(epoch, depth, logs)
        if self.verbose:
            tell(
                f"{place} of depth {depth} improved from {before} to {values[depth]:.5f}, "
                f"saving F_{depth}∘G_{depth} to {path}"
            )
        self.model.placement.call(self._write, depth, path)
        self.best, self.best_depth = values[depth], depth

    def _mode(self, name: str) -> str:
        if self.mode != "auto":
            return self.mode
        steps = self.model.training_run.stage_steps
        found = next((mode for mode in (mode_of(one, name) for one in steps) if mode), None)
        if found is None:
            raise ValueError(
                f"`mode='auto'` must know whether more or less of {self.monitor!r} is better, "
                "which its metric does not tell. Pass `mode='max'` or `mode='min'`."
            )
        return found

    def _path(self, epoch: int, depth: int, logs: dict[str, Any]) -> Path:
        numbers = {**logs, "epoch": epoch + 1, "depth": depth}
        try:
            return Path(self.filepath.format(**numbers))
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                "`filepath` may have {depth}, {epoch} and names of the logs in braces. Received: "
                f"filepath={self.filepath!r}, with {type(error).__name__}: {error}."
            ) from error

    def _write(self, depth: int, path: Path) -> None:
        self.model.drain()
        truncated = self.model.truncate(depth)
        path.parent.mkdir(parents=True, exist_ok=True)
        with saved_aside(path) as aside:
            (truncated.save_weights if self.save_weights_only else truncated.save)(aside)

    def _not_there(self, logs: dict[str, Any]) -> str:
        named = (re.fullmatch(r"(val_)?stage_\d+_(.+)", key) for key in logs)
        known = sorted({f"{one[1] or ''}{one[2]}" for one in named if one})
        return (
            f"`monitor` must be one of {', '.join(map(repr, known))}. Received: "
            f"monitor={self.monitor!r}, which the logs of no depth have."
        )
