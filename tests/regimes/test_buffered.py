"""What the buffered regime takes, refuses and plans, as plain data."""

import keras
import pytest

from keras_trgl.regimes import Buffered


def test_weights_of_the_picks_are_equal_but_for_the_slow_stage():
    assert Buffered(order="random").pick_weights(3) == [1.0, 1.0, 1.0]
    slow = Buffered(order="random", slow_stage=3, slowdown=0.25)
    assert slow.pick_weights(4) == [1.0, 1.0, 0.75, 1.0]


def test_a_slow_stage_that_is_not_there_is_an_error():
    regime = Buffered(order="random", slow_stage=3, slowdown=0.5)
    wanted = "`slow_stage` must be 1 to 2, the number of stages. Received: slow_stage=3."
    with pytest.raises(ValueError, match=wanted):
        regime.pick_weights(2)


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ({}, 0),
        ({"capacity": 3}, 2),
        ({"capacity": 3, "warm_up": 0}, 0),
        ({"warm_up": 1}, 1),
        ({"order": "skewed"}, 0),
    ],
)
def test_larger_stores_warm_up_with_two_steps_unless_told(arguments, steps):
    assert Buffered(**arguments).warm_up_steps == steps


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [({}, None), ({"max_reuse": 3}, 3), ({"order": "skewed"}, 1)],
)
def test_skewed_batches_are_used_once(arguments, limit):
    assert Buffered(**arguments).reuse_limit == limit


@pytest.mark.parametrize("epoch", [0, 5])
def test_all_stages_are_planned_in_every_epoch(epoch):
    assert Buffered().plan(3, epoch) == (0, 1, 2)
    assert Buffered().visits(3) == ()


SLOW = (
    "A slow stage takes `slow_stage`, `slowdown` above 0 and `order='random'`. Received: "
    "slow_stage={}, slowdown={}, order={!r}."
)
SKEWED = (
    "`order='skewed'` uses every batch once, from stores of one. Received: "
    "capacity={}, max_reuse={}, warm_up={}. Leave them out."
)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"capacity": 0}, ValueError, "`capacity` must be at least 1. Received: capacity=0."),
        ({"capacity": 2.0}, TypeError, "`capacity` must be an integer. Received: capacity=2.0."),
        (
            {"order": "lifo"},
            ValueError,
            "`order` must be one of 'round_robin', 'random', 'skewed'. Received: order='lifo'.",
        ),
        ({"max_reuse": 0}, ValueError, "`max_reuse` must be at least 1. Received: max_reuse=0."),
        ({"warm_up": -1}, ValueError, "`warm_up` must be at least 0. Received: warm_up=-1."),
        (
            {"slow_stage": 0, "slowdown": 0.5, "order": "random"},
            ValueError,
            "`slow_stage` must be at least 1. Received: slow_stage=0. Stages count from 1.",
        ),
        (
            {"slow_stage": 1, "slowdown": 1.0, "order": "random"},
            ValueError,
            "`slowdown` must be at least 0 and below 1. Received: slowdown=1.0. At 1 the stage "
            "would never step.",
        ),
        ({"slowdown": -0.5}, ValueError, "`slowdown` must be at least 0 and below 1."),
        (
            {"slow_stage": 1, "order": "random"},
            ValueError,
            SLOW.format(1, 0.0, "random"),
        ),
        ({"slowdown": 0.5, "order": "random"}, ValueError, SLOW.format(None, 0.5, "random")),
        ({"slow_stage": 2, "slowdown": 0.5}, ValueError, SLOW.format(2, 0.5, "round_robin")),
        ({"order": "skewed", "capacity": 2}, ValueError, SKEWED.format(2, None, None)),
        ({"order": "skewed", "warm_up": 1}, ValueError, SKEWED.format(1, None, 1)),
        ({"order": "skewed", "max_reuse": 2}, ValueError, SKEWED.format(1, 2, None)),
    ],
)
def test_wrong_arguments_are_errors_that_say_the_way_out(arguments, error, message):
    with pytest.raises(error, match=message):
        Buffered(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"capacity": 4, "order": "random", "max_reuse": 2, "warm_up": 1},
        {"order": "random", "slow_stage": 2, "slowdown": 0.5},
        {"order": "skewed", "max_reuse": 1},
    ],
)
def test_it_makes_itself_again(arguments):
    regime = Buffered(**arguments)
    config = keras.saving.serialize_keras_object(regime)
    again = keras.saving.deserialize_keras_object(config)
    assert isinstance(again, Buffered)
    assert again.get_config() == regime.get_config()
    assert {key: regime.get_config()[key] for key in arguments} == arguments
