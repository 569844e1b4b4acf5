"""The bound on the risk of early exit holds; thresholds and temperatures are the best there are."""

import itertools

import numpy as np
import pytest
from scipy import optimize, stats

from keras_trgl.export.exit_predictions import (
    exit_predictions,
    fitted_temperature,
    log_probabilities,
)
from keras_trgl.export.risk_bound import check_enough, last_safe, p_values
from keras_trgl.export.threshold_path import NEVER, exits_of, shared_path, threshold_path

COST = np.array([0.3, 0.6, 1.0])


def pool(rows, seed=0):
    """Give whether depths are right and how sure they are; deeper ones are right more often."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=rows)
    logit = np.stack([1.2 + 0.9 * k - 1.5 * hard + 0.5 * rng.normal(size=rows) for k in range(3)])
    chance = 1.0 / (1.0 + np.exp(-logit))
    return rng.random((3, rows)) < chance, chance.astype("float32")


@pytest.mark.parametrize("risk", [0.01, 0.2])
def test_p_values_are_those_of_the_binomial_distribution(risk):
    wrong = np.array([0, 1, 5, 49, 50])
    np.testing.assert_allclose(p_values(wrong, 50, risk), stats.binom.cdf(wrong, 50, risk))


def test_testing_stops_at_the_first_point_that_fails():
    wrong = np.array([0, 1, 2, 40, 0])
    assert last_safe(wrong, 200, 0.05, 0.95) == 3
    assert last_safe(wrong[:3], 200, 0.05, 0.95) == 3


def test_the_least_number_of_rows_is_told():
    check_enough(59, 0.05, 0.95)
    with pytest.raises(ValueError, match=r"at least 59 rows .* Received: 58. Give more held-out"):
        check_enough(58, 0.05, 0.95)


def promised(count, risk, confidence, rows, fit):
    """Give the share of calibrations whose bound holds on the whole pool."""
    right, sure = pool(20_000)
    gain = ~(right[-1] & ~right)
    rng, kept = np.random.default_rng(1), []
    for _ in range(count):
        drawn = rng.integers(0, right.shape[1], rows)
        first, others = drawn[:fit], drawn[fit:]
        path = threshold_path(gain[:, first].astype(float), sure[:, first], COST)
        lost = [(~gain[exits_of(sure[:, others], one), others]).sum() for one in path]
        place = last_safe(np.array(lost), len(others), risk, confidence) - 1
        true = ~gain[exits_of(sure, path[place]), np.arange(right.shape[1])]
        kept.append(true.mean() <= risk)
    return np.mean(kept)


@pytest.mark.parametrize(
    "count", [40, pytest.param(500, marks=pytest.mark.long)], ids=["40 draws", "500 draws"]
)
def test_the_bound_holds_as_often_as_was_promised(count):
    confidence, error = 0.9, 0.1
    slack = 2.0 * (error * confidence / count) ** 0.5
    assert promised(count, 0.03, confidence, 800, 300) >= confidence - slack


def test_the_path_begins_with_never_and_ends_at_once():
    right, sure = pool(300)
    path = threshold_path(right.astype(float), sure, COST)
    assert path[0] == (NEVER, NEVER)
    assert path[-1] == (0.0, 0.0)
    costs = [COST[exits_of(sure, one)].mean() for one in path]
    assert (np.diff(costs) <= 0.0).all()
    assert len(path) > 10


def test_the_path_begins_with_never_where_times_are_noise():
    right, sure = pool(100)
    for cost in ([1.0, 0.9, 0.8], [0.5, 1.1, 1.0], [1.0, 1.0, 1.0]):
        assert threshold_path(right.astype(float), sure, cost)[0] == (NEVER, NEVER)


def test_thresholds_of_their_own_are_as_good_as_any_on_a_grid():
    right, sure = pool(200)
    rows = np.arange(200)
    path = threshold_path(right.astype(float), sure, COST)
    grid = [NEVER, *np.quantile(sure[:2], np.linspace(0.0, 1.0, 25))]
    for price in (0.05, 0.2, 1.0):
        value = right - price * COST[:, None]

        def worth(thresholds, value=value):
            return value[exits_of(sure, thresholds), rows].mean()

        assert max(map(worth, path)) >= max(map(worth, itertools.product(grid, grid))) - 0.011


def test_one_threshold_for_all_leaves_ever_more_rows():
    _, sure = pool(100)
    depths = [exits_of(sure, one).mean() for one in shared_path(sure, 20)]
    assert depths[0] == 2.0
    assert depths[-1] == 0.0
    assert (np.diff(depths) <= 0.0).all()


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_temperature_has_the_least_loss(kind, scale):
    rng = np.random.default_rng(0)
    logits = 2.0 * rng.normal(size=(500, 4))
    chances = np.exp(log_probabilities(logits, "logits"))
    labels = np.array([rng.choice(4, p=row) for row in chances])
    given = scale * logits
    if kind == "probabilities":
        given = np.exp(log_probabilities(given, "logits"))

    def loss(temperature):
        return -log_probabilities(given, kind, temperature)[np.arange(500), labels].mean()

    found = fitted_temperature(given, labels, kind)
    best = optimize.minimize_scalar(loss, bounds=(0.02, 50.0), method="bounded")
    assert loss(found) == pytest.approx(best.fun, abs=1e-7)
    assert found == pytest.approx(scale, rel=0.15)


def test_exits_are_averaged_after_their_temperatures():
    logits = [np.array([[2.0, 0.0]]), np.array([[0.0, 4.0]])]
    first, second = (np.exp(log_probabilities(one, "logits", 2.0)) for one in logits)
    found = exit_predictions(logits, "logits", (2.0, 2.0), average=True)
    np.testing.assert_allclose(np.exp(found[1]), (first + second) / 2, rtol=1e-6)
    np.testing.assert_allclose(np.exp(found[0]), first, rtol=1e-6)
    assert exit_predictions(logits, "logits", None, average=False)[1] is logits[1]
