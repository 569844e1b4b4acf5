"""What training logged of every stage, epoch by epoch."""

from typing import Any

from keras_trgl.diagnostics.depth_table import DepthTable, column
from keras_trgl.plot.history import by_quantity, epochs_of, logged
from keras_trgl.registration import public


@public
def history_by_stage(history: Any) -> DepthTable:
    """Give the stages' entries of a history, a row per epoch, sorted by what they are.

    Args:
        history: `keras.callbacks.History` that `fit` gave, or its dict of name to a list with a
            number per epoch.

    Returns:
        `DepthTable` with a column per `stage_k_…` and `val_stage_k_…`, NaN where a stage did not
        train or validation did not run. A dict does not tell in which epochs it ran: a frequency
        is taken if only one gives as many numbers, else the last epochs.

    Raises:
        TypeError: it is no history.
        ValueError: no stage is in it.

    Example:
        >>> from keras_trgl.diagnostics import history_by_stage
        >>> logs = {"loss": [1.0, 0.5], "stage_2_loss": [1.0, 0.5], "stage_1_loss": [2.0, 1.0]}
        >>> print(history_by_stage(logs))
        history by stage
        epoch  stage_1_loss  stage_2_loss
        1            2.0000        1.0000
        2            1.0000        0.5000
    """
    logs = logged(history)
    groups = by_quantity(logs)
    names = [name for entries in groups.values() for name in entries.values()]
    units = {
        name: quantity.replace("_", " ")
        for quantity, entries in groups.items()
        for name in entries.values()
    }
    places = epochs_of(history)
    # All entries', as a stage may have numbers in some of them alone.
    epochs = sorted({epoch for at in places.values() for epoch in at})
    found = {name: dict(zip(places[name], logs[name], strict=True)) for name in names}
    model = getattr(getattr(history, "model", None), "name", None)
    return DepthTable(
        "history by stage",
        tuple(epochs),
        {name: column(values.get(epoch) for epoch in epochs) for name, values in found.items()},
        units,
        {} if model is None else {"model": model},
        index_name="epoch",
    )
