"""What diagnostics say of the stages while they train, as entries of the logs."""

from typing import Any

import keras
import numpy as np

from keras_trgl.checks import check_choice, check_integer
from keras_trgl.network.head_end import check_end
from keras_trgl.network.held_rows import held_rows
from keras_trgl.network.seen_by_depth import SeenByDepth, walk_of_stages
from keras_trgl.recording import Words, shown
from keras_trgl.registration import public
from keras_trgl.scores import (
    calibration_error,
    check_classes,
    check_predictions,
    class_labels,
    class_probabilities,
    mean_of_numbers,
)


@public
class WatchStages(keras.callbacks.Callback):
    """Adds each stage's displacement, energy and calibration error to the logs of epochs.

    So `History`, `CSVLogger` and `TensorBoard` have them, wherever they stand in the list:

    - `stage_k_displacement`: mean of |T_k(x) − x|²/|x|², where shapes agree.
    - `stage_k_energy`: E_k in inference mode, where training itself logs none.
    - `stage_k_calibration_error`: the expected calibration error of head k, with labels.

    All are of the rows given here, in inference mode, at the end of an epoch. A stage that has
    not trained yet, and every stage in epochs between, has NaN.

    Args:
        data: array `(examples, …)`, or a tuple `(x, y)` with class indices or one-hot labels;
            some hundreds of rows that are not trained on.
        every: int ≥ 1, epochs. The first is looked at, and each that follows so many later.
            Defaults to `1`.
        predictions: `"logits"` or `"probabilities"`: what the heads give. Defaults to
            `"logits"`.
        batch_size: int ≥ 1, examples. Defaults to `256`.

    Raises:
        TypeError: a number is no integer, or labels are no classes (without labels give `x`
            alone); in `fit`, a model without stages.
        ValueError: there are no rows, or not as many labels; another word for `predictions`; in
            `fit`, heads that give other predictions, or do not know the labels.

    Example:
        >>> import keras, numpy as np, keras_trgl as trgl
        >>> x, y = np.ones((8, 3), "float32"), np.zeros(8, int)
        >>> model = trgl.GreedyModel.from_blocks(
        ...     [keras.layers.Dense(3)], [1], trgl.heads.LinearHead(2), method="vangl", seed=0)
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> watch = trgl.callbacks.WatchStages((x, y))
        >>> history = model.fit(x, y, callbacks=[watch], verbose=0)
        >>> "stage_1_displacement" in history.history
        True
    """

    adds_to_logs = True
    """It comes before all callbacks that read the logs."""

    def __init__(
        self, data: Any, every: int = 1, predictions: str = "logits", batch_size: int = 256
    ) -> None:
        super().__init__()
        check_integer("every", every, 1)
        check_integer("batch_size", batch_size, 1)
        check_choice("predictions", predictions, ("logits", "probabilities"))
        x, y = held_rows(data)
        self.every = int(every)
        self.predictions = predictions
        self.batch_size = int(batch_size)
        self._data = (x, None if y is None else class_labels(y))
        self._seer: Any = None
        self._entries: list[str] = []

    def __repr__(self) -> str:
        return shown(self, data=Words(f"{len(self._data[0])} rows"), every=self.every)

    def set_model(self, model: Any) -> None:
        """Take the model.

        Raises:
            TypeError: it has no stages.
            ValueError: its heads end in probabilities, and are said to give logits.
        """
        if not hasattr(model, "stages") or not hasattr(model, "training_run"):
            raise TypeError(
                f"`WatchStages` looks at stages. Received: {model!r}. Train a `GreedyModel`."
            )
        if self._data[1] is not None:
            check_end(model.heads, self.predictions)
        super().set_model(model)
        self._seer, self._entries = None, []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Add the entries."""
        if logs is None:
            return
        nothing = float("nan")
        if epoch % self.every == 0 or not self._entries:
            found = self._look()
            # The names are the same in every epoch: `CSVLogger` takes its columns from the first.
            self._entries = [key for key in found if not _is_there(key, logs)]
        else:
            found = dict.fromkeys(self._entries, nothing)
        for depth, has_trained in enumerate(self._trained(), start=1):
            for key in self._entries:
                if key.startswith(f"stage_{depth}_"):
                    logs[key] = found[key] if has_trained else nothing

    def _made(self) -> SeenByDepth:
        model = self.model
        reduction = next((s.energy_reduction for s in model.stages if s.energy_reduction), "mean")
        walk = walk_of_stages(model.stages, model.heads, reduction, model.input_shape)
        wants = ("displacement", "energy", "prediction")
        return SeenByDepth(walk, wants, range(1, len(model.stages) + 1))

    def _trained(self) -> list[bool]:
        """Give whether each stage has stepped."""
        optimizers = self.model.optimizer.optimizers
        return [int(keras.ops.convert_to_numpy(one.iterations)) > 0 for one in optimizers]

    def _look(self) -> dict[str, float]:
        """Give the entries of every stage, trained or not."""
        if self._seer is None:
            self._seer = self._made()
        x, labels = self._data
        predict = self.model.placement.call
        seen = predict(self._seer.predict, x, batch_size=self.batch_size, verbose=0)
        found = {}
        for key, values in seen.items():
            name, _, depth = key.rpartition("_")
            if name != "prediction":
                found[f"stage_{depth}_{name}"] = mean_of_numbers(values)
            elif labels is not None:
                check_classes(values, labels)
                # Numbers that are not finite are the training's to tell, not ours.
                if np.isfinite(values).all():
                    check_predictions(self.predictions, values)
                chances = class_probabilities(values, self.predictions)
                found[f"stage_{depth}_calibration_error"] = calibration_error(chances, labels)
        return found


def _is_there(key: str, logs: Any) -> bool:
    """Tell whether training logs an energy itself, by either of its names."""
    own = key.replace("_energy", "_kinetic_energy")
    return key.endswith("_energy") and (key in logs or own in logs)
