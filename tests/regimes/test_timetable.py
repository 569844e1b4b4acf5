"""Where a run stands in its regime, without a model."""

import pytest

from keras_trgl.regimes import MultiLap, Parallel, Sequential, StopStage
from keras_trgl.regimes.timetable import Timetable

NAN = float("nan")


def run(regime, values, num_stages=2, timetable=None):
    """Give (stage, lap, epoch of the visit) of every epoch until the run is over.

    `values` are the stages' losses, by epoch of the run.
    """
    timetable, seen = timetable or Timetable(regime, num_stages), []
    for epoch, value in enumerate(values):
        logs = timetable.position(epoch).logs
        seen.append(tuple(logs.values()))
        if timetable.end_epoch(epoch, {f"stage_{logs['stage']}_loss": value}):
            break
    return seen


def test_every_epoch_of_every_visit_comes_in_order():
    assert run(MultiLap([2, 4], num_laps=2), range(99)) == [
        (1, 1, 1),
        (2, 1, 1),
        (2, 1, 2),
        (1, 2, 1),
        (2, 2, 1),
        (2, 2, 2),
    ]


def test_a_regime_without_visits_is_never_over_and_says_nothing():
    timetable = Timetable(Parallel(), 3)
    position = timetable.position(7)
    assert (position.plan, position.logs) == ((0, 1, 2), {})
    assert [timetable.position(e).begins_visit for e in range(3)] == [True, False, False]
    assert timetable.end_epoch(7, {}) is False
    assert timetable.total_epochs is None
    assert [timetable.check_epochs(e) for e in (None, 5)] == [1, 5]


def test_visits_begin_with_their_first_epoch():
    timetable = Timetable(Sequential([2, 3]), 2)
    begins = [timetable.position(epoch).begins_visit for epoch in range(5)]
    assert begins == [True, False, True, False, False]


def test_epochs_are_the_sum_of_the_stages():
    timetable = Timetable(Sequential([2, 3]), 2)
    assert timetable.total_epochs == 5
    # Fewer are the first of them: the rest may come by `initial_epoch`.
    assert [timetable.check_epochs(e) for e in (None, 5, 4)] == [5, 5, 4]
    wanted = (
        r"`epochs` must be at most the sum of the stages' epochs, 5 = 2 \+ 3. "
        "Received: epochs=6. Leave it out, or change the regime's `epochs`."
    )
    with pytest.raises(ValueError, match=wanted):
        timetable.check_epochs(6)


def test_epochs_after_an_early_stop_are_skipped():
    losses = [1.0, 0.5, 0.5, 9.0, 8.0, 7.0, 6.0]
    assert run(Sequential(4, stop=StopStage(1)), losses) == [
        (1, 1, 1),
        (1, 1, 2),
        (1, 1, 3),
        (2, 1, 1),
        (2, 1, 2),
        (2, 1, 3),
        (2, 1, 4),
    ]


def test_the_last_stage_stopped_ends_the_run():
    losses = [2.0, 1.0, 3.0, 3.0, 0.0]
    assert run(Sequential([2, 4], stop=StopStage(1)), losses)[2:] == [(2, 1, 1), (2, 1, 2)]


def test_patience_counts_epochs_in_a_row():
    losses = [1.0, 1.1, 0.9, 1.0, 1.0, 0.1]
    seen = run(Sequential([9, 1], stop=StopStage(2)), losses)
    assert seen == [(1, 1, epoch) for epoch in range(1, 6)] + [(2, 1, 1)]


def test_every_visit_starts_anew():
    # Stage 1 stops in lap 1; its best there, 0.0, does not count in lap 2.
    losses = [0.0, 5.0, 1.0, 0.5, 0.25, 5.0, 4.0, 3.0, 1.0, 0.5, 0.25]
    seen = run(MultiLap(6, num_laps=2, stop=StopStage(1)), losses)
    assert seen == [(1, 1, e) for e in (1, 2)] + [
        (stage, lap, e) for stage, lap in ((2, 1), (1, 2), (2, 2)) for e in (1, 2, 3)
    ]


def test_nan_is_no_improvement():
    assert run(Sequential([9, 1], stop=StopStage(2)), [NAN] * 9)[-2:] == [(1, 1, 2), (2, 1, 1)]
    assert run(Sequential([9, 1], stop=StopStage(2)), [1.0, NAN, NAN, 0.0])[-2] == (1, 1, 3)


def test_a_stop_in_a_visit_s_last_epoch_skips_nothing():
    assert len(run(Sequential(2, stop=StopStage(1)), [1.0, 2.0, 1.0, 2.0])) == 4


def test_a_name_that_the_logs_lack_is_told_with_those_they_have():
    timetable = Timetable(Sequential(2, stop=StopStage(1, "auc")), 2)
    wanted = (
        "`StopStage` watches 'auc', so the logs must have 'stage_1_auc'. Received: loss, "
        "stage_1_loss. Watch one of these names, without its stage."
    )
    with pytest.raises(ValueError, match=wanted):
        timetable.end_epoch(0, {"stage_1_loss": 1.0, "loss": 1.0})


def test_epochs_without_validation_are_passed_over():
    timetable = Timetable(Sequential([5, 1], stop=StopStage(1, "val_loss")), 2)
    for epoch, value in enumerate([1.0, None, 2.0]):
        logs = {} if value is None else {"val_stage_1_loss": value}
        timetable.end_epoch(epoch, {"loss": 0.0, **logs})
    assert timetable.position(3).plan == (1,)


def test_validation_without_the_name_watched_is_an_error():
    timetable = Timetable(Sequential([1, 5], stop=StopStage(1, "val_accuracy")), 2)
    with pytest.raises(ValueError, match="the logs must have 'val_stage_2_accuracy'"):
        timetable.end_epoch(1, {"val_loss": 1.0})


def test_its_state_goes_on_where_it_was():
    regime = MultiLap(6, num_laps=2, stop=StopStage(2))
    losses = [1.0, 2.0, 3.0, 1.0, 1.0, 1.0, 3.0, 2.0, 1.0, 5.0, 4.0, 3.0]
    whole = Timetable(regime, 2)
    for epoch, value in enumerate(losses):
        stage = whole.position(epoch).logs["stage"]
        half = Timetable(regime, 2)
        half.set_state(whole.get_state())
        logs = {f"stage_{stage}_loss": value}
        assert whole.end_epoch(epoch, logs) == half.end_epoch(epoch, logs)
        assert whole.position(epoch + 1) == half.position(epoch + 1)
