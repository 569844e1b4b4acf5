"""The simulation against closed forms, and against what any schedule must obey."""

import pathlib

import pytest

PATH = pathlib.Path(__file__).parents[2] / "benchmarks" / "stage_parallel" / "simulate.py"


@pytest.fixture(scope="module")
def script(load_script):
    return load_script(PATH)


STAGES = [1, 2, 4, 8, 16]
BATCHES = [1, 8, 128]


@pytest.mark.parametrize("k", STAGES)
@pytest.mark.parametrize("n", BATCHES)
def test_even_stages_without_transfers_have_closed_forms(script, k, n):
    costs, alone = script.even(k), script.one_device(script.even(k), n)
    assert alone == 3 * k * n
    assert alone / script.pipelined(costs, 0.0, n) == pytest.approx(n / (n + (k - 1) / 3) * k)
    assert alone / script.skewed(costs, 0.0, n) == pytest.approx(k * n / (n + k - 1))
    assert alone / script.synchronous(costs, 0.0, n) == pytest.approx(3 * k / (k + 2))


@pytest.mark.parametrize("k", STAGES)
@pytest.mark.parametrize("m", [1, 4, 32])
def test_micro_batches_without_transfers_have_closed_forms(script, k, m):
    for schedule in (script.gpipe, script.one_forward_one_backward):
        # M small batches through K stages: the bubble is K − 1 of them.
        assert schedule(script.even(k), 0.0, m) == pytest.approx(3 * (m + k - 1) / m)


@pytest.mark.parametrize("kind", ["even", "uneven"])
def test_one_device_gains_nothing_and_none_gains_more_than_its_devices(script, kind):
    for k in STAGES:
        costs = getattr(script, kind)(k)
        assert sum(costs) == pytest.approx(k)
        for transfer in (0.0, 0.05, 0.1):
            for gain in script.speed_ups(costs, transfer, 64).values():
                assert gain <= k / max(costs) + 1e-9
                if k == 1:
                    assert gain == pytest.approx(1.0)


def test_a_transfer_never_makes_a_schedule_faster(script):
    for k in STAGES[1:]:
        free, dear = (script.speed_ups(script.even(k), one, 64) for one in (0.0, 0.1))
        for schedule, gain in dear.items():
            assert gain < free[schedule]


def test_the_slowest_stage_sets_the_pace(script):
    costs = script.uneven(4)
    for schedule in (script.pipelined, script.skewed):
        longer = schedule(costs, 0.0, 65) - schedule(costs, 0.0, 64)
        assert longer == pytest.approx(3 * max(costs))


@pytest.mark.parametrize(
    ("schedule", "k", "transfer", "wanted"),
    [
        ("GPipe, 4 micro-batches", 4, 0.05, 2.19),
        ("GPipe, 4K micro-batches", 16, 0.10, 12.49),
        ("1F1B, 4K micro-batches", 2, 0.10, 1.63),
        ("1F1B, 4K micro-batches", 16, 0.05, 11.85),
        ("local, synchronous", 8, 0.05, 2.17),
        ("local, queues", 8, 0.10, 7.81),
    ],
)
def test_speed_ups_are_those_of_an_independent_simulation(script, schedule, k, transfer, wanted):
    found = script.speed_ups(script.even(k), transfer, 128)[schedule]
    assert found == pytest.approx(wanted, abs=0.006)
