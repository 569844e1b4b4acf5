"""The short progress bar."""

import keras
import numpy as np
import pytest

from keras_trgl.callbacks import DepthProgbar

LOGS = {"loss": 0.5, "accuracy": 0.75}


def stages(prefix, accuracies):
    return {f"{prefix}stage_{k}_accuracy": a for k, a in enumerate(accuracies, start=1)} | {
        f"{prefix}stage_{k}_loss": 1.0 for k in range(1, len(accuracies) + 1)
    }


def test_stages_are_left_out_and_the_best_depth_is_told():
    short = DepthProgbar.shorten(LOGS | stages("", [0.5, 0.875, 0.75]))
    assert short == LOGS | {"best_depth": 2}


def test_validation_decides_where_there_is_one():
    validation = {"val_loss": 1.0, "val_accuracy": 0.5} | stages("val_", [0.75, 0.25, 0.5])
    short = DepthProgbar.shorten(LOGS | stages("", [0.5, 0.875, 0.75]) | validation)
    assert short["best_depth"] == 1
    assert "val_stage_1_accuracy" not in short


def test_one_stage_has_no_best_depth():
    assert DepthProgbar.shorten(LOGS | stages("", [0.75])) == LOGS


def test_no_logs_are_no_error():
    assert DepthProgbar.shorten(None) == {}


@pytest.mark.parametrize("verbose", [1, 2])
def test_counts_are_whole_and_measures_have_decimals(verbose, capsys):
    logs = {"loss": 2.0, "accuracy": 1.0, "tried": 3, "seen": np.int64(0), "visits": 4.0}
    logs |= {"val_true_positives": 12.0, "staleness": 1.5} | stages("", [0.5, 0.75])
    bar = DepthProgbar()
    bar.set_model(keras.Sequential())
    bar.set_params({"verbose": verbose, "epochs": 1, "steps": 5})
    bar.on_epoch_begin(0)
    bar.on_train_batch_end(1, logs)
    bar.on_epoch_end(0, logs)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line[line.index("loss") :] == (
        "loss: 2.0000 - accuracy: 1.0000 - tried: 3 - seen: 0 - visits: 4 - "
        "val_true_positives: 12 - staleness: 1.5000 - best_depth: 2"
    )
    assert logs["visits"] == 4.0
    assert type(logs["tried"]) is int
