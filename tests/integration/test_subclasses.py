"""What a subclass of the model overrides is honoured as on a plain model, or refused."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_trgl as trgl
from keras_trgl import GreedyModel
from keras_trgl.heads import LinearHead

pytestmark = pytest.mark.sampled(4)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype("float32")
Y = RNG.integers(0, 3, 40)


class SeesData:
    """Counts examples and adds up what it is shown, as attributes."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = keras.metrics.Sum(name="seen")
        self.shown = keras.metrics.Mean(name="shown")


class OwnLoss(SeesData):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        self.shown.update_state(ops.mean(x))
        return 2.0 * loss + ops.mean(ops.square(y_pred))


class LossAnew(SeesData):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.square(y_pred - ops.cast(ops.expand_dims(y, 1), "float32")))


class OwnMetrics(SeesData):
    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        results = super().compute_metrics(x, y, y_pred, sample_weight)
        self.seen.update_state(ops.cast(ops.shape(y)[0], "float32"))
        self.shown.update_state(ops.mean(x))
        results["seen"] = self.seen.result()
        results["largest"] = ops.max(y_pred)
        return results


class OwnTrainStep(SeesData):
    def train_step(self, data):
        logs = super().train_step(data)
        self.seen.update_state(1.0)
        return {**logs, "seen": self.seen.result()}


class OwnTestStep(SeesData):
    def test_step(self, data):
        logs = super().test_step(data)
        self.seen.update_state(1.0)
        return {**logs, "seen": self.seen.result()}


class Trackers(SeesData):
    pass


OVERRIDES = {
    "compute_loss": OwnLoss,
    "compute_loss_anew": LossAnew,
    "compute_metrics": OwnMetrics,
    "train_step": OwnTrainStep,
    "test_step": OwnTestStep,
    "trackers": Trackers,
}


def plain(mixin):
    """Give a plain Keras model with the override, built like the greedy one of a single stage."""
    kind = type("Plain", (mixin, keras.Sequential), {})
    return kind([keras.Input((6,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(3)])


def greedy(mixin, num_stages=1, **options):
    """Give a greedy model with the override."""
    kind = type("Greedy", (mixin, GreedyModel), {})
    stages = [[keras.layers.Dense(5, "tanh")] for _ in range(num_stages)]
    heads = [keras.layers.Dense(3) for _ in range(num_stages)]
    model = kind(stages, heads, method="vangl", seed=0, **options)
    model.build((None, 6))
    return model


def compiled(model, **options):
    model.compile(
        keras.optimizers.SGD(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **options,
    )
    return model


@pytest.mark.parametrize("eager", [False, True], ids=["graph", "eager"])
@pytest.mark.parametrize("name", OVERRIDES)
def test_one_stage_does_what_the_plain_model_does(name, eager):
    one, other = greedy(OVERRIDES[name]), plain(OVERRIDES[name])
    other.set_weights(one.get_weights())
    logs = []
    for model in (one, other):
        compiled(model, run_eagerly=eager)
        options = {"batch_size": 8, "shuffle": False, "verbose": 0}
        fitted = model.fit(X, Y, epochs=2, validation_data=(X[:16], Y[:16]), **options).history
        shown = model.evaluate(X, Y, batch_size=8, verbose=0, return_dict=True)
        logs.append({**fitted, **{f"evaluated_{key}": value for key, value in shown.items()}})
    for mine, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)
    assert set(logs[1]) <= set(logs[0]), sorted(set(logs[1]) - set(logs[0]))
    for key, values in logs[1].items():
        np.testing.assert_allclose(logs[0][key], values, rtol=1e-5, atol=1e-6, err_msg=key)


def test_every_stage_minimises_the_overridden_loss():
    model, base = compiled(greedy(OwnLoss, 3)), compiled(greedy(Trackers, 3))
    x = ops.convert_to_tensor(X)
    for depth in (1, 2, 3):
        prediction = base(x, exits=depth)
        wanted = 2.0 * float(base.compute_loss(X, Y, prediction)) + float(
            ops.mean(ops.square(prediction))
        )
        found = model.evaluate(X, Y, batch_size=40, verbose=0, return_dict=True)
        assert found[f"stage_{depth}_loss"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("num_stages", [1, 3])
def test_what_is_counted_by_metrics_is_counted_once_a_batch(num_stages):
    model = compiled(greedy(OwnMetrics, num_stages))
    history = model.fit(X, Y, batch_size=8, verbose=0).history
    assert history["seen"] == [40.0]


@pytest.mark.parametrize(
    "regime",
    [trgl.regimes.Sequential(1, cache="memory"), trgl.regimes.Sequential(1)],
    ids=["cached", "in_turn"],
)
def test_overrides_see_the_network_s_data_in_regimes_in_turn(regime):
    model = compiled(greedy(OwnMetrics, 2, regime=regime))
    history = model.fit(X, Y, batch_size=8, verbose=0).history
    # The last epoch's: stage 2 trained, and was shown the data, not its own inputs.
    assert float(model.shown.result()) == pytest.approx(float(X.mean()), abs=1e-6)
    assert history["seen"] == [40.0, 40.0]


def test_trackers_of_a_subclass_are_among_the_metrics_and_reset():
    model = compiled(greedy(OwnTrainStep))
    assert any(metric is model.seen for metric in model.metrics)
    history = model.fit(X, Y, batch_size=8, epochs=2, verbose=0).history
    assert history["seen"] == [5.0, 5.0]


def test_a_model_gives_its_task_loss_when_asked():
    model = compiled(greedy(Trackers, 2))
    prediction = model(X)
    wanted = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(Y, prediction)
    assert float(model.compute_loss(X, Y, prediction)) == pytest.approx(float(wanted))


def test_an_override_of_call_is_refused():
    class Scaled(GreedyModel):
        def call(self, inputs, training=None, exits=None):
            return super().call(inputs / 255.0, training, exits)

    with pytest.raises(
        TypeError, match=r"`call` cannot be overridden.*Scaled.*first stage's blocks"
    ):
        Scaled([[keras.layers.Dense(4)]], [LinearHead(3)])


@pytest.mark.parametrize(
    "regime", [trgl.regimes.Buffered(capacity=2), trgl.regimes.Buffered(order="skewed")]
)
def test_metrics_of_a_batch_that_stages_do_not_share_are_refused(regime):
    model = compiled(greedy(OwnMetrics, 2, regime=regime))
    with pytest.raises(ValueError, match=r"`compute_metrics`.*one batch.*`Parallel\(\)`"):
        model.fit(X, Y, batch_size=8, verbose=0)


def test_a_loss_of_its_own_goes_through_stores():
    model = compiled(greedy(LossAnew, 2, regime=trgl.regimes.Buffered(capacity=1)))
    same = compiled(greedy(LossAnew, 2))
    logs = [one.fit(X, Y, batch_size=8, verbose=0).history for one in (model, same)]
    for mine, theirs in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert logs[0]["loss"] == logs[1]["loss"]
