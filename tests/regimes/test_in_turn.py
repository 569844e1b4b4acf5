"""The regimes in which one stage trains at a time, as plain data."""

import keras
import pytest

from keras_trgl.regimes import MultiLap, Sequential, StopStage
from keras_trgl.regimes.feature_cache import FeatureCache
from keras_trgl.regimes.regime import Visit


def plans(regime, num_stages, epochs):
    return [regime.plan(num_stages, epoch) for epoch in range(epochs)]


def test_sequential_visits_every_stage_once():
    assert Sequential(3).visits(2) == (Visit((0,), 1, 3), Visit((1,), 1, 3))
    assert Sequential([1, 4]).visits(2) == (Visit((0,), 1, 1), Visit((1,), 1, 4))
    assert plans(Sequential([1, 2]), 2, 3) == [(0,), (1,), (1,)]


def test_laps_visit_every_stage_for_a_share_of_its_epochs():
    assert MultiLap([2, 6], num_laps=2).visits(2) == (
        Visit((0,), 1, 1),
        Visit((1,), 1, 3),
        Visit((0,), 2, 1),
        Visit((1,), 2, 3),
    )


@pytest.mark.parametrize("num_laps", [1, 2, 5])
def test_laps_spend_the_epochs_of_every_stage(num_laps):
    regime = MultiLap([10, 20, 30], num_laps=num_laps)
    planned = plans(regime, 3, 60)
    assert [planned.count((k,)) for k in range(3)] == [10, 20, 30]


def test_one_lap_is_sequential():
    assert MultiLap([2, 3], num_laps=1).visits(2) == Sequential([2, 3]).visits(2)


def test_after_the_last_visit_there_is_no_plan():
    with pytest.raises(NotImplementedError, match="Received: none for this one"):
        Sequential(1).plan(2, epoch=2)


def test_a_list_of_another_length_is_an_error():
    wanted = (
        r"A list of `epochs` must have one number per stage, 3. Received: epochs=\[2, 3\]. Give "
        "one number to use it for every stage."
    )
    with pytest.raises(ValueError, match=wanted):
        Sequential([2, 3]).visits(3)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: Sequential(0),
            ValueError,
            "`epochs` must be at least 1. Received: epochs=0. Every stage trains in every lap.",
        ),
        (lambda: Sequential([1, 0]), ValueError, "`epochs` must be at least 1. Received: epochs=0"),
        (lambda: Sequential(1.5), TypeError, "`epochs` must be an integer. Received: epochs=1.5"),
        (
            lambda: Sequential(2, frozen="eval"),
            ValueError,
            "`frozen` must be one of 'inference', 'train'. Received: frozen='eval'.",
        ),
        (
            lambda: Sequential(2, cache="memory", frozen="train"),
            ValueError,
            "Features can be cached only if frozen stages are in inference mode. Received: "
            "frozen='train' with a cache. In training mode features depend on the batch: leave "
            "out one of the two.",
        ),
        (
            lambda: Sequential(2, cache="tape"),
            ValueError,
            "`kind` must be one of 'memory', 'disk'. Received: kind='tape'.",
        ),
        (
            lambda: Sequential(2, cache=True),
            TypeError,
            "`cache` must be None, 'memory', 'disk' or a `FeatureCache`. Received: cache=True.",
        ),
        (
            lambda: Sequential(2, stop=3),
            TypeError,
            "`stop` must be a `StopStage` or None. Received: stop=3.",
        ),
        (
            lambda: MultiLap(4, num_laps=0),
            ValueError,
            "`num_laps` must be at least 1. Received: num_laps=0.",
        ),
        (
            lambda: MultiLap(7, num_laps=3),
            ValueError,
            "`epochs` must divide into 3 laps. Received: epochs=7. Near it: 6.",
        ),
        (
            lambda: MultiLap([6, 8], num_laps=3),
            ValueError,
            r"`epochs` must divide into 3 laps. Received: epochs=\[6, 8\]. Near it: 6.",
        ),
        (
            lambda: MultiLap(2, num_laps=3),
            ValueError,
            "`epochs` must be at least 3. Received: epochs=2. Every stage trains in every lap.",
        ),
    ],
)
def test_wrong_arguments_are_errors_that_say_the_way_out(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "regime",
    [
        Sequential(),
        Sequential([2, 3], cache=FeatureCache("memory", max_bytes=2**20)),
        Sequential(4, cache="disk", stop=StopStage(2, "val_accuracy", "max", 0.5)),
        Sequential(4, frozen="train", idle_device="CPU:0"),
        MultiLap(),
        MultiLap([4, 6], 2, None, "train", StopStage(3), "CPU:0"),
    ],
)
def test_it_makes_itself_again(regime):
    config = keras.saving.serialize_keras_object(regime)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(regime)
    assert again.get_config() == regime.get_config()
    assert again.cache == regime.cache
    assert again.visits(2) == regime.visits(2)
    if regime.stop is not None:
        assert again.stop.get_config() == regime.stop.get_config()
        assert isinstance(again.stop, StopStage)


def test_what_it_was_given_is_not_changed_with_it():
    epochs = [2, 3]
    regime = Sequential(epochs)
    epochs.append(4)
    assert len(regime.visits(2)) == 2
