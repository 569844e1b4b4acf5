"""Which stage takes which batch, against a model of the regime in plain Python."""

import contextlib
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl.regimes import Buffered
from keras_trgl.training.buffered_step import BufferedStep
from keras_trgl.training.skewed_step import SkewedStep

pytestmark = pytest.mark.sampled(2)

K = 3
SPEC = (tf.TensorSpec([None, 2], "float32"), tf.TensorSpec([None], "int64"), None, None)


class Tagging:
    """A stage that notes the batch it gets, and writes its own step count beside the tag."""

    def __init__(self, k, log, num_stages=K, before=None):
        self.k, self.log, self.before, self.is_last = k, log, before, k == num_stages - 1
        self.count = tf.Variable(0.0)
        block = types.SimpleNamespace(compute_dtype="float32")
        self.stage = types.SimpleNamespace(compute_output_shape=lambda x: x, blocks=[block])

    device = None

    def on_device(self):
        return contextlib.nullcontext()

    def train(self, batch, hands_on=True):
        x, y, *rest = batch
        assert rest == [None, None]
        assert hands_on or self.is_last
        count = self.count.assign_add(1.0)
        staleness = 0.0 if self.before is None else self.before.count - x[0, 1]
        tf.numpy_function(self.note, [x[:, 0], y, staleness, count], [])
        return tf.stack([x[:, 0], tf.fill([tf.shape(x)[0]], count)], axis=1)

    def note(self, tags, labels, staleness, count):
        self.log.append((self.k, [int(tag) for tag in tags], list(labels), int(staleness), count))


def stages(log, num_stages=K):
    made = []
    for k in range(num_stages):
        made.append(Tagging(k, log, num_stages, made[-1] if made else None))
    return made


def make_step(steps, regime, seed=0):
    if regime.order == "skewed":
        return SkewedStep(steps, regime)
    return BufferedStep(steps, regime, seed)


def batch(tag, size=2):
    x = tf.constant([[float(tag), 0.0]] * size)
    return x, tf.fill([size], tf.constant(tag, tf.int64)), None, None


def run(regime, num_batches=9, num_stages=K, seed=0, sizes=None, eager=False, warm_up_at=()):
    """Give (stage, tag, staleness) of every step, and the buffered step.

    In a graph stages that depend on nothing of each other have no order; then the list is by
    stage.
    """
    log = []
    steps = stages(log, num_stages)
    buffered = make_step(steps, regime, seed)
    buffered.prepare(SPEC)
    one = tf.function(lambda x, y: buffered((x, y, None, None)), autograph=False)
    for tag in range(num_batches):
        if tag in warm_up_at:
            buffered.warm_up()
        x, y, *_ = batch(tag, (sizes or {}).get(tag, 2))
        buffered((x, y, None, None)) if eager else one(x, y)
    buffered.drain_all(eager)
    for _, tags, labels, _, _ in log:
        assert tags == labels, "Labels travel with their features."
    if not eager:
        log.sort(key=lambda entry: (entry[0], entry[4]))
    seen = [(k, tags[0], staleness) for k, tags, _, staleness, _ in log]
    for k, step in enumerate(steps[1:], start=1):
        measured = [staleness for at, _, staleness in seen if at == k]
        if measured:
            assert float(step.staleness_tracker.result()) == pytest.approx(np.mean(measured))
    return seen, buffered


def by_stage(seen):
    return sorted(seen, key=lambda entry: entry[0])


def simulate(regime, num_batches=9, num_stages=K, picks=None, kept=lambda tag: True, again=()):
    """Give what `run` should, from lists of [tag, uses, step of the writer]."""
    stores, steps, seen = [[] for _ in range(num_stages)], [0] * num_stages, []

    def step(k, tag, staleness):
        seen.append((k, tag, staleness))
        steps[k] += 1
        if kept(tag):
            stores[k] = [*stores[k], [tag, 0, steps[k]]][-regime.capacity :]

    def take(k):
        limit = regime.reuse_limit
        if any(limit is None or uses < limit for _, uses, _ in stores[k - 1]):
            slot = min(reversed(stores[k - 1]), key=lambda slot: slot[1])
            slot[1] += 1
            step(k, slot[0], steps[k - 1] - slot[2])

    later, rounds, warm_up = range(1, num_stages), 0, regime.warm_up_steps
    for tag in range(num_batches):
        if regime.order == "skewed":
            [take(k) for k in reversed(later)]
        step(0, tag, 0)
        rounds = 1 if tag in again else rounds + 1
        if warm_up and rounds <= warm_up:
            if rounds == warm_up:
                [take(k) for k in later for _ in range(warm_up)]
        elif regime.order == "round_robin":
            [take(k) for k in later]
        elif regime.order == "random":
            while (k := next(picks)) > 0:
                take(k)
    if regime.order == "skewed":
        for _ in later:
            [take(k) for k in reversed(later)]
    return seen


def drawn(regime, seed=0, num_stages=K):
    """Give the picks of a seed, without end."""
    other = BufferedStep(stages([], num_stages), regime, seed)
    draw = tf.function(other._draw, autograph=False)
    while True:
        yield int(draw())


@pytest.mark.parametrize(
    "regime",
    [
        Buffered(),
        Buffered(warm_up=1),
        Buffered(capacity=2, warm_up=0),
        Buffered(capacity=2, max_reuse=1),
        Buffered(capacity=3),
        Buffered(capacity=4, warm_up=3, max_reuse=2),
        Buffered(order="skewed"),
        Buffered(order="random"),
        Buffered(order="random", max_reuse=1),
        Buffered(capacity=2, order="random", max_reuse=2),
        Buffered(capacity=3, order="random", slow_stage=2, slowdown=0.5),
    ],
    ids=lambda regime: " ".join(str(v) for v in regime.get_config().values()),
)
@pytest.mark.parametrize("eager", [False, True], ids=["graph", "eager"])
def test_every_stage_takes_the_batches_that_the_reference_takes(regime, eager):
    seen, _ = run(regime, eager=eager)
    wanted = simulate(regime, picks=drawn(regime))
    assert seen == (wanted if eager else by_stage(wanted))


@pytest.mark.parametrize("regime", [Buffered(), Buffered(order="skewed")])
def test_stores_of_one_take_every_batch_once_at_every_stage_and_none_is_stale(regime):
    seen, buffered = run(regime, 5)
    for k in range(K):
        assert [(tag, stale) for at, tag, stale in seen if at == k] == [(b, 0) for b in range(5)]
    assert regime.order != "skewed" or not buffered.in_flight()


def test_skewed_stages_are_one_batch_apart():
    regime, log = Buffered(order="skewed"), []
    buffered = make_step(stages(log), regime)
    buffered.prepare(SPEC)
    calls = []
    for tag in range(4):
        buffered(batch(tag))
        calls.append([(k, tags[0]) for k, tags, *_ in log])
        log.clear()
    assert calls == [
        [(0, 0)],
        [(1, 0), (0, 1)],
        [(2, 0), (1, 1), (0, 2)],
        [(2, 1), (1, 2), (0, 3)],
    ]


def test_a_run_of_fewer_batches_than_stages_is_drained():
    seen, _ = run(Buffered(order="skewed"), num_batches=2, num_stages=4)
    assert seen == [(k, tag, 0) for k in range(4) for tag in range(2)]


def test_other_orders_drain_nothing():
    seen, buffered = run(Buffered(capacity=2), 4)
    buffered.drain_all()
    assert all(buffer.readable() for buffer in buffered.buffers)
    assert [step.count.numpy() for step in buffered.steps] == [
        sum(k == at for at, _, _ in seen) for k in range(K)
    ]


def test_the_warm_up_is_every_stage_twice_in_turn():
    seen, _ = run(Buffered(capacity=3), 3, eager=True)
    assert [k for k, _, _ in seen] == [0, 0, 1, 1, 2, 2, 0, 1, 2]


def test_an_empty_store_is_never_read():
    # Without a warm-up and with every batch used once, later stages sit out at first.
    seen, _ = run(Buffered(capacity=2, order="random", max_reuse=1, warm_up=0), 12, eager=True)
    for k in range(1, K):
        taken = [tag for at, tag, _ in seen if at == k]
        assert len(set(taken)) == len(taken)
        for place, (at, tag, _) in enumerate(seen):
            assert at != k or (k - 1, tag) in [(a, t) for a, t, _ in seen[:place]]


def test_the_warm_up_comes_again_when_asked_for():
    regime = Buffered(capacity=2, warm_up=2)
    seen, _ = run(regime, 8, warm_up_at=[4], eager=True)
    assert seen == simulate(regime, 8, again=[4])
    # Batches 4 and 5 are stage 1's alone, then the later stages step twice each.
    assert [k for k, _, _ in seen][-12:] == [0, 0, 1, 1, 2, 2, 0, 1, 2, 0, 1, 2]


def test_incomplete_batches_are_trained_on_and_not_written():
    regime = Buffered(capacity=2)
    seen, _ = run(regime, 9, sizes={4: 1, 8: 1})
    assert seen == by_stage(simulate(regime, 9, kept=lambda tag: tag not in (4, 8)))
    assert {tag for k, tag, _ in seen if k == 0} == set(range(9))
    assert {tag for k, tag, _ in seen if k > 0} == set(range(8)) - {4}


def test_a_store_of_one_writes_incomplete_batches():
    seen, _ = run(Buffered(), 3, sizes={2: 1})
    assert [tag for k, tag, _ in seen if k == K - 1] == [0, 1, 2]


def test_picks_are_a_function_of_the_seed():
    regime = Buffered(capacity=2, order="random")
    first, same, other = (run(regime, 12, seed=seed)[0] for seed in (1, 1, 2))
    assert first == same
    assert first != other


def test_clear_begins_the_same_run_again():
    regime = Buffered(capacity=2, order="random")
    seen, buffered = run(regime, 6, eager=True)
    log = buffered.steps[0].log
    log.clear()
    buffered.clear()
    for tag in range(6):
        buffered(batch(tag))
    assert [(k, tags[0]) for k, tags, *_ in log] == [(k, tag) for k, tag, _ in seen]


@pytest.mark.parametrize("slow", [1, 2, 3])
def test_a_slow_stage_is_picked_less_often(slow):
    regime = Buffered(order="random", slow_stage=slow, slowdown=0.5)
    picks = drawn(regime)
    counts = np.bincount([next(picks) for _ in range(600)], minlength=K)
    share = counts / 600
    wanted = np.array(regime.pick_weights(K)) / 2.5
    # Five standard deviations of a binomial share.
    assert np.all(np.abs(share - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / 600))


@pytest.mark.parametrize("order", ["round_robin", "random", "skewed"])
def test_one_stage_needs_no_store(order):
    seen, buffered = run(Buffered(order=order), 3, num_stages=1)
    assert seen == [(0, tag, 0) for tag in range(3)]
    assert buffered.buffers == []


def test_batches_of_another_structure_get_new_stores():
    buffered = BufferedStep(stages([]), Buffered(), 0)
    assert buffered.prepare(SPEC)
    kept = buffered.buffers
    assert not buffered.prepare(SPEC)
    assert buffered.buffers is kept
    assert buffered.prepare((*SPEC[:2], tf.TensorSpec([None], "float32"), None))
    assert len(buffered.buffers) == K - 1
    assert isinstance(buffered.steps[1].staleness_tracker, keras.metrics.Mean)


def test_a_slow_stage_must_be_there():
    regime = Buffered(order="random", slow_stage=4, slowdown=0.5)
    with pytest.raises(ValueError, match="`slow_stage` must be 1 to 3, the number of stages"):
        BufferedStep(stages([]), regime, 0)
