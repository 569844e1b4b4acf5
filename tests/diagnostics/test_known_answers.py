"""Diagnostics against closed forms, brute force, scikit-learn and a published package."""

import itertools
import math

import keras
import numpy as np
import pytest
from sklearn import linear_model, metrics, preprocessing

from keras_trgl import diagnostics
from keras_trgl.diagnostics import sampled

from .conftest import dense

RNG = np.random.default_rng(7)
CKA_OF_A_PACKAGE = 0.7169872144048826
"""`ckatorch` 1.0.3: its `hsic1` on float64 kernels of three batches of 32 rows."""

TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])
SPD = np.array([[2.0, 0.5], [0.5, 1.5]])


def gaussian(rows, *scales):
    return (np.random.default_rng(1).normal(size=(rows, len(scales))) * scales).astype("float32")


def test_w2_of_gaussians_is_the_closed_form(model_of):
    # W2² from N(0, I) to N(m, A²) is |m|² + tr (A − I)²; 800 rows of the sum |T x − x|².
    shift = np.array([1.0, -2.0])
    x = gaussian(800, 1.0, 1.0)
    wanted = shift @ shift + np.square(SPD - np.eye(2)).sum()
    error = np.square(x @ (SPD - np.eye(2)) + shift).sum(1).std() / math.sqrt(len(x))
    found = diagnostics.wasserstein(model_of([dense(SPD, shift)], 2), x)["w2"][0] ** 2
    assert found == pytest.approx(wanted, abs=4 * error)


def test_w2_does_not_follow_the_stages_own_pairs(model_of):
    # A quarter turn of N(0, diag(4, 1)): W2² is (2 − 1)² + (1 − 2)², the pairs cost 2·5.
    x = gaussian(800, 2.0, 1.0)
    model = model_of([dense(TURN)], 2)
    found = diagnostics.monge_gap(model, x)
    assert found["w2_squared"][0] == pytest.approx(2.0, rel=0.15)
    assert found["cost"][0] == pytest.approx(10.0, rel=0.15)
    assert diagnostics.wasserstein(model, x)["w2"][0] ** 2 == pytest.approx(found["w2_squared"][0])


def test_the_best_pairing_is_that_of_all_permutations(model_of):
    x = RNG.normal(size=(7, 3)).astype("float32")
    weights = RNG.normal(size=(3, 3)).astype("float32")
    after = x @ weights
    costs = [
        np.square(x - after[list(order)]).sum(1).mean()
        for order in itertools.permutations(range(7))
    ]
    found = diagnostics.monge_gap(model_of([dense(weights)], 3), x)
    assert found["w2_squared"][0] == pytest.approx(min(costs), rel=1e-5)
    own = np.square(x - after).sum(1).mean()
    assert found["gap"][0] == pytest.approx(own - min(costs), rel=1e-4)


CONVEX = {
    "a positive definite matrix": lambda: dense(SPD, [1.0, 0.0]),
    "a growing function of each number": lambda: keras.layers.Activation("softplus"),
    "nothing at all": keras.layers.Identity,
}


@pytest.mark.parametrize("case", CONVEX)
def test_the_gradient_of_a_convex_function_has_no_monge_gap(case, model_of):
    model = model_of([CONVEX[case]()], 2)
    assert diagnostics.monge_gap(model, gaussian(400, 1.0, 1.0))["relative"][0] < 1e-5


def test_a_rotation_has_a_monge_gap(model_of):
    found = diagnostics.monge_gap(model_of([dense(TURN)], 2), gaussian(400, 1.0, 1.0))
    assert found["relative"][0] > 0.9
    assert found["gap"][0] > 0


def test_wide_features_are_projected_by_one_pca_of_both_sides(model_of):
    basis = np.linalg.qr(RNG.normal(size=(40, 40)))[0]
    x = (RNG.normal(size=(60, 5)) @ basis[:5]).astype("float32")
    model = model_of([dense(np.eye(40), basis[6] * 3.0)], 40)
    found = diagnostics.wasserstein(model, x)
    # Both sides lie in six axes, so that nothing is lost.
    assert found["w2"][0] == pytest.approx(3.0, rel=1e-4)
    assert "one PCA of both sides to 32 dimensions" in found.about["features"]
    assert diagnostics.wasserstein(model, x, dimensions=1)["w2"][0] <= 3.0 + 1e-5


def test_information_of_a_separable_mixture_is_its_entropy(model_of):
    rng = np.random.default_rng(0)
    y = np.arange(240) % 3
    x = rng.normal(size=(240, 4)).astype("float32")
    x[np.arange(240), y] += 12.0
    found = diagnostics.information(
        model_of([keras.layers.Identity()], 4, units=3), (x, y), epochs=30
    )
    assert found["label"][0] == pytest.approx(math.log(3), rel=0.05)
    assert found["label"][0] <= math.log(3)
    assert found["accuracy"][0] > 0.98
    assert np.isnan(found["input"][0])


@pytest.mark.long
def test_information_of_an_overlapping_mixture_is_no_more_than_it_holds(model_of):
    rng = np.random.default_rng(0)
    y = np.arange(1200) % 2
    x = rng.normal(size=(1200, 1)).astype("float32")
    x[:, 0] += 2.0 * y
    # I = ∫ Σ_y p(y) p(x|y) ln p(x|y)/p(x), by a sum over a fine grid.
    at = np.linspace(-8, 10, 20001)
    of = [np.exp(-np.square(at - 2.0 * k) / 2) / math.sqrt(2 * math.pi) for k in (0, 1)]
    both = (of[0] + of[1]) / 2
    wanted = sum((0.5 * p * np.log(np.maximum(p, 1e-300) / both)).sum() for p in of)
    wanted *= at[1] - at[0]
    model = model_of([keras.layers.Identity()], 1)
    found = diagnostics.information(model, (x, y), held_out=0.5, epochs=12)["label"][0]
    # Sampling error of a mean of −log q over 600 rows is about 0.02.
    assert 0.8 * wanted < found < wanted + 0.06


@pytest.mark.long
def test_information_of_labels_that_are_noise_is_none(model_of):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 4)).astype("float32"), rng.integers(0, 2, 300)
    model = model_of([keras.layers.Identity()], 4)
    assert diagnostics.information(model, (x, y), epochs=10)["label"][0] < 0.05


def test_a_constant_image_tells_nothing_and_the_image_itself_tells_most(tiny_model, images):
    x, y = images
    inputs = keras.Input((8, 8, 4))
    same = keras.layers.Identity(name="same")(inputs)
    nothing = keras.layers.Rescaling(0.0, name="nothing")(same)
    plain = keras.Model(inputs, nothing)
    found = diagnostics.information(plain, (x, y), ["same", "nothing"], epochs=25)
    assert found.index == ("same", "nothing")
    assert found["input"][0] > found["input"][1] + 0.02
    assert found["label"][0] > found["label"][1] + 0.5


def test_separability_is_scikit_learns(tiny_model, images):
    x, y = images
    found = diagnostics.separability(tiny_model, (x, y), held_out=0.4, seed=3)
    drawn = sampled.draw((x, y), 2000, 3, needs_labels=True)
    train, test = sampled.held_out(drawn.labels, 0.4, 3)
    assert len(test) == 24
    assert not set(train) & set(test)
    features = drawn.x
    for k, stage in enumerate(tiny_model.stages):
        for block in stage.blocks:
            features = np.asarray(block(features, training=False))
        vectors = features.mean((1, 2)).astype("float64")
        scale = preprocessing.StandardScaler().fit(vectors[train])
        probe = linear_model.LogisticRegression(max_iter=10_000)
        probe.fit(scale.transform(vectors[train]), drawn.labels[train])
        wanted = probe.score(scale.transform(vectors[test]), drawn.labels[test])
        assert found["probe"][k] == pytest.approx(wanted)
        own = tiny_model.predict_exits(drawn.x[test], verbose=0)[k].argmax(1)
        assert found["head"][k] == pytest.approx((own == drawn.labels[test]).mean())


def cka_by_loops(one, other, size):
    """Nguyen et al. 2021, equations 2 and 3, written out."""

    def hsic(f, g):
        total = 0.0
        for start in range(0, len(f), size):
            k, m = (a[start : start + size] @ a[start : start + size].T for a in (f, g))
            n = len(k)
            for kernel in (k, m):
                kernel[np.diag_indices(n)] = 0.0
            ones = np.ones(n)
            total += np.trace(k @ m)
            total += (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
            total -= 2 / (n - 2) * (ones @ k @ m @ ones)
        return total

    return hsic(one, other) / math.sqrt(hsic(one, one) * hsic(other, other))


def test_similarity_is_that_of_a_published_package(model_of):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(96, 6)).astype("float32")
    first, second = (rng.normal(size=shape).astype("float32") for shape in ((6, 5), (5, 4)))
    then = keras.Sequential([keras.layers.ReLU(), dense(second)])
    found = diagnostics.similarity(model_of([dense(first), then], 6), x, batch_size=32)
    assert found["2"][0] == pytest.approx(CKA_OF_A_PACKAGE, abs=1e-5)
    mixed = x[np.random.default_rng(0).permutation(96)].astype("float64")
    wanted = cka_by_loops(mixed @ first, np.maximum(mixed @ first, 0) @ second, 32)
    assert found["2"][0] == pytest.approx(wanted, abs=1e-5)
    np.testing.assert_allclose(found["1"], [1.0, found["2"][0]], rtol=1e-6)


def test_similarity_of_two_models_sees_through_a_rotation(model_of):
    x = gaussian(60, 1.0, 2.0)
    one, other = model_of([dense(SPD)], 2), model_of([dense(SPD @ TURN), dense(TURN)], 2)
    found = diagnostics.similarity(one, x, other)
    assert list(found.columns) == ["1", "2"]
    np.testing.assert_allclose([found["1"][0], found["2"][0]], 1.0, rtol=1e-5)
    assert found.about["axes"] == ("depth of net", "depth of net")


def test_unrelated_features_have_no_similarity(model_of):
    x = RNG.normal(size=(400, 8)).astype("float32")
    left = np.eye(8)[:, :4]
    right = np.eye(8)[:, 4:]
    one, other = model_of([dense(left)], 8), model_of([dense(right)], 8)
    assert abs(diagnostics.similarity(one, x, other)["1"][0]) < 0.05


def test_energy_and_displacement_are_those_of_the_residuals(tiny_model, images):
    x, _ = images
    for weight in tiny_model.weights:
        # Normalizations that change nothing would not tell inference from training.
        if "moving_variance" in weight.path:
            weight.assign(weight + 1.0)
    found = diagnostics.transport(tiny_model, x, batch_size=7)
    before = x
    for k, stage in enumerate(tiny_model.stages):
        features, energy = before, 0.0
        for block in stage.blocks:
            residual = features
            for layer in block.branch:
                residual = layer(residual, training=False)
            energy += float(np.square(residual).mean())
            features = np.asarray(block(features, training=False))
        moved = np.square(features - before).sum((1, 2, 3)) / np.square(before).sum((1, 2, 3))
        assert found["energy"][k] == pytest.approx(energy, rel=1e-5)
        assert found["displacement"][k] == pytest.approx(moved.mean(), rel=1e-5)
        before = features
    paper = diagnostics.transport(tiny_model, x, reduction="sum")
    np.testing.assert_allclose(paper["energy"], found["energy"] * 8 * 8 * 4, rtol=1e-5)


def test_calibration_is_that_of_the_formulas(tiny_model, images):
    x, y = images
    found = diagnostics.calibration(tiny_model, (x, y))
    for k, logits in enumerate(tiny_model.predict_exits(x, verbose=0)):
        chances = np.exp(logits.astype("float64"))
        chances /= chances.sum(1, keepdims=True)
        sure, right = chances.max(1), chances.argmax(1) == y
        error = 0.0
        for low in np.arange(15) / 15:
            inside = (sure > low) & (sure <= low + 1 / 15)
            if inside.any():
                error += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
        assert found["ece"][k] == pytest.approx(error)
        assert found["nll"][k] == pytest.approx(metrics.log_loss(y, chances), rel=1e-5)
        assert found["brier"][k] == pytest.approx(
            np.square(chances - np.eye(3)[y]).sum(1).mean(), rel=1e-5
        )
        assert found["accuracy"][k] == pytest.approx(right.mean())


def test_failure_prediction_is_scikit_learns(tiny_model, images):
    x, y = images
    found = diagnostics.failure_prediction(tiny_model, (x, y))
    given = tiny_model.predict_exits(x, verbose=0)
    right = [logits.argmax(1) == y for logits in given]
    sure = [np.asarray(keras.ops.softmax(logits)).max(1) for logits in given]
    for k in range(2):
        wanted = metrics.roc_auc_score(right[k], sure[k])
        assert found["right"][k] == pytest.approx(wanted, abs=1e-6)
    mended = ~right[0] & right[1]
    assert found["mends"][0] == pytest.approx(metrics.roc_auc_score(mended, 1 - sure[0]), abs=1e-6)
    assert found["mended"][0] == pytest.approx(mended.mean())
    assert np.isnan(found["mends"][1])


def test_a_single_unit_is_a_class_against_none(model_of):
    x = np.array([[2.0], [-1.0], [0.5], [-3.0]], "float32")
    y = np.array([1, 0, 0, 0])
    identity = keras.layers.Identity
    model = model_of([identity()], 1, heads=[identity()])
    found = diagnostics.calibration(model, (x, y))
    chance = 1 / (1 + np.exp(-x[:, 0].astype("float64")))
    assert found["accuracy"][0] == 0.75
    assert found["nll"][0] == pytest.approx(metrics.log_loss(y, chance), rel=1e-6)
