"""When a stage has trained enough."""

import keras
import pytest

from keras_trgl.regimes import StopStage


@pytest.mark.parametrize(
    ("monitor", "key"),
    [
        ("loss", "stage_3_loss"),
        ("val_loss", "val_stage_3_loss"),
        ("val_accuracy", "val_stage_3_accuracy"),
        ("top_5_val", "stage_3_top_5_val"),
    ],
)
def test_it_watches_the_stage_in_training(monitor, key):
    assert StopStage(1, monitor).key(3) == key


@pytest.mark.parametrize(
    ("monitor", "mode", "up"),
    [
        ("loss", "auto", False),
        ("val_loss", "auto", False),
        ("mean_squared_error", "auto", False),
        ("accuracy", "auto", True),
        ("val_sparse_categorical_accuracy", "auto", True),
        ("val_AUC", "auto", True),
        ("f1", "max", True),
        ("accuracy", "min", False),
    ],
)
def test_what_is_best_follows_mode_and_name(monitor, mode, up):
    rule = StopStage(1, monitor, mode)
    assert rule.improves(1.0, None)
    assert rule.improves(2.0, 1.0) == up
    assert rule.improves(1.0, 2.0) != up
    assert not rule.improves(1.0, 1.0)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_an_improvement_is_larger_than_min_delta(mode):
    rule, sign = StopStage(1, mode=mode, min_delta=0.5), 1 if mode == "max" else -1
    assert not rule.improves(1.0 + sign * 0.5, 1.0)
    assert rule.improves(1.0 + sign * 0.75, 1.0)


def test_nan_is_no_improvement_even_at_first():
    rule = StopStage(1)
    assert not rule.improves(float("nan"), None)
    assert not rule.improves(float("nan"), 1.0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"patience": 0}, ValueError, "`patience` must be at least 1. Received: patience=0."),
        ({"patience": 1.0}, TypeError, "`patience` must be an integer. Received: patience=1.0."),
        (
            {"patience": 1, "mode": "up"},
            ValueError,
            "`mode` must be one of 'auto', 'min', 'max'. Received: mode='up'.",
        ),
        (
            {"patience": 1, "monitor": "val_stage_2_loss"},
            ValueError,
            "`monitor` must be a name without a stage, such as 'loss' or 'val_accuracy'. Received: "
            "monitor='val_stage_2_loss'. The stage in training is watched.",
        ),
        (
            {"patience": 1, "monitor": None},
            ValueError,
            "`monitor` must be a name without a stage, .* Received: monitor=None",
        ),
        (
            {"patience": 1, "min_delta": -0.5},
            ValueError,
            "`min_delta` must be at least 0. Received: min_delta=-0.5.",
        ),
        (
            {"patience": 1, "min_delta": float("nan")},
            ValueError,
            "`min_delta` must be at least 0. Received: min_delta=nan.",
        ),
        (
            {"patience": 1, "restore_best": 1},
            TypeError,
            "`restore_best` must be True or False. Received: restore_best=1.",
        ),
    ],
)
def test_wrong_arguments_are_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        StopStage(**arguments)


def test_it_makes_itself_again():
    rule = StopStage(4, "val_accuracy", "max", 0.25, restore_best=True)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rule))
    assert isinstance(again, StopStage)
    assert again.get_config() == rule.get_config()
    assert again.get_config() == {
        "patience": 4,
        "monitor": "val_accuracy",
        "mode": "max",
        "min_delta": 0.25,
        "restore_best": True,
    }
