"""Attention layers, patch merging and stochastic depth against formulas written out in NumPy."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl.layers import (
    DropPath,
    PatchMerging,
    PositionEmbedding,
    SelfAttention,
    WindowAttention,
)


def grid(height=8, width=8, channels=6, batch=2):
    shape = (batch, height, width, channels)
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def randomized(layer, shape):
    """Build a layer and give every weight a number of its own."""
    layer.build((None, *shape[1:]))
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=w.shape) * 0.5 for w in layer.weights])
    return layer


def window_attention(x, layer, size, shift):
    """Attention of every position of a grid, one by one: no rolling, no mask, no windows cut.

    With borders at s, s + M, …, two positions share a window if the number of borders before them
    is the same.
    """
    qkv = x @ layer.qkv.kernel.numpy() + layer.qkv.bias.numpy()
    heads = layer.num_heads
    query, key, value = (part.reshape(*x.shape[:3], heads, -1) for part in np.split(qkv, 3, -1))
    table = layer.relative_position_bias.numpy()
    scale = query.shape[-1] ** -0.5
    out = np.zeros_like(query)
    places = list(itertools.product(range(x.shape[1]), range(x.shape[2])))
    window = {(i, j): ((i - shift) // size, (j - shift) // size) for i, j in places}
    for n, (i, j), head in itertools.product(range(len(x)), places, range(heads)):
        seen = [place for place in places if window[place] == window[i, j]]
        scores = np.array(
            [
                scale * query[n, i, j, head] @ key[n, a, b, head]
                + table[(i - a + size - 1) * (2 * size - 1) + j - b + size - 1, head]
                for a, b in seen
            ]
        )
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        out[n, i, j, head] = sum(
            w * value[n, a, b, head] for w, (a, b) in zip(weights, seen, strict=True)
        )
    out = out.reshape(x.shape)
    return out @ layer.projection.kernel.numpy() + layer.projection.bias.numpy()


@pytest.mark.parametrize(
    ("height", "width", "size", "shift"),
    [(8, 8, 4, 0), (8, 8, 4, 2), (8, 12, 4, 1), (6, 6, 3, 1), (4, 8, 2, 1)],
)
def test_window_attention_is_the_formula_position_by_position(height, width, size, shift):
    x = grid(height, width)
    layer = randomized(WindowAttention(2, size, shift), x.shape)
    wanted = window_attention(x, layer, size, shift)
    np.testing.assert_allclose(layer(x), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 3), (1, 1), (4, 8)])
def test_a_grid_no_larger_than_the_window_has_windows_of_its_side_and_no_shift(height, width):
    x = grid(height, width)
    layer = randomized(WindowAttention(3, 4, 2), x.shape)
    side = min(height, width)
    assert layer.relative_position_bias.shape == ((2 * side - 1) ** 2, 3)
    wanted = window_attention(x, layer, side, 0)
    np.testing.assert_allclose(layer(x), wanted, rtol=1e-4, atol=1e-4)


def test_no_gradient_crosses_the_border_of_shifted_windows():
    x = tf.constant(grid(batch=1))
    layer = randomized(WindowAttention(2, 4, 2), x.shape)
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = tf.reduce_sum(tf.square(layer(x)[0, 0, 0]))
    reached = np.abs(tape.gradient(out, x)[0]).sum(-1) > 0
    wanted = np.zeros((8, 8), bool)
    wanted[:2, :2] = True
    np.testing.assert_array_equal(reached, wanted)


def test_both_matrices_and_the_table_start_apart():
    layer = WindowAttention(1, 2, kernel_initializer=keras.initializers.TruncatedNormal(0, 0.02))
    layer.build((None, 4, 4, 6))
    assert not np.isin(layer.projection.kernel.numpy(), layer.qkv.kernel.numpy()).any()
    assert layer.relative_position_bias.numpy().std() > 0


def test_patch_merging_joins_neighbours_column_by_column():
    x = grid(4, 6, 3)
    layer = randomized(PatchMerging(), x.shape)
    joined = np.zeros((2, 2, 3, 12), "float32")
    for i, j in itertools.product(range(2), range(3)):
        corners = [x[:, 2 * i + a, 2 * j + b] for b in range(2) for a in range(2)]
        joined[:, i, j] = np.concatenate(corners, -1)
    mean, variance = joined.mean(-1, keepdims=True), joined.var(-1, keepdims=True)
    normal = (joined - mean) / np.sqrt(variance + 1e-5)
    normal = normal * layer.norm.gamma.numpy() + layer.norm.beta.numpy()
    wanted = normal @ layer.reduction.kernel.numpy()
    np.testing.assert_allclose(layer(x), wanted, rtol=1e-4, atol=1e-4)
    assert layer.count_params() == 8 * 3 + 8 * 3**2


def test_self_attention_is_the_formula():
    x = grid(1, 5)[:, 0]
    layer = randomized(SelfAttention(2), x.shape)
    kernels = {w.path.split("/", 1)[1]: w.numpy() for w in layer.weights}

    def project(name):
        kernel, bias = (kernels[f"attention/{name}/{part}"] for part in ("kernel", "bias"))
        return np.einsum("btc,chd->bhtd", x, kernel) + bias[None, :, None]

    query, key, value = map(project, ("query", "key", "value"))
    scores = np.exp(query @ key.transpose(0, 1, 3, 2) / np.sqrt(3))
    mixed = scores / scores.sum(-1, keepdims=True) @ value
    name = "attention/attention_output"
    wanted = np.einsum("bhtd,hdc->btc", mixed, kernels[f"{name}/kernel"]) + kernels[f"{name}/bias"]
    np.testing.assert_allclose(layer(x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("class_token", [False, True])
def test_positions_are_added_after_the_class_token(class_token):
    x = grid(1, 5)[:, 0]
    layer = randomized(PositionEmbedding(class_token), x.shape)
    wanted = x
    if class_token:
        token = np.broadcast_to(layer.token.numpy(), (2, 1, 6))
        wanted = np.concatenate([token, x], 1)
    np.testing.assert_allclose(layer(x), wanted + layer.positions.numpy(), rtol=1e-6)


def test_drop_path_drops_whole_examples_and_keeps_the_mean():
    rate, x = 0.3, np.ones((20000, 2, 3), "float32")
    out = np.asarray(DropPath(rate, seed=0)(x, training=True))
    kept = out[:, 0, 0] > 0
    np.testing.assert_allclose(out, kept[:, None, None] * x / (1 - rate), rtol=1e-6)
    # Four standard deviations of a mean of 20,000 draws.
    assert kept.mean() == pytest.approx(1 - rate, abs=4 * np.sqrt(rate * (1 - rate) / len(x)))


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.5, None), (0.0, True)])
def test_drop_path_is_the_identity_in_inference_and_at_rate_zero(rate, training):
    x = grid()
    np.testing.assert_array_equal(DropPath(rate)(x, training=training), x)


LAYERS = {
    "window": lambda: WindowAttention(2, 4),
    "shifted": lambda: WindowAttention(2, 4, 2, keras.initializers.RandomNormal(stddev=0.1)),
    "merging": lambda: PatchMerging("he_normal"),
    "self": lambda: SelfAttention(3),
    "positions": lambda: PositionEmbedding(True, "random_normal"),
    "drop_path": lambda: DropPath(0.2, seed=3),
}


def input_of(name):
    return grid(2, 5)[:, 0] if name in ("self", "positions") else grid()


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_saved_and_loaded_and_tells_its_shape(name, tmp_path):
    x = input_of(name)
    layer = LAYERS[name]()
    assert layer.compute_output_shape((None, *x.shape[1:])) == (None, *layer(x).shape[1:])
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "layer.keras")
    loaded = keras.saving.load_model(tmp_path / "layer.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert loaded.layers[-1].get_config() == layer.get_config()
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", LAYERS)
def test_it_computes_in_half_precision_near_the_single_one(name, policy):
    x = input_of(name)
    single = LAYERS[name]()
    wanted = single(x)
    keras.config.set_dtype_policy(policy)
    half = LAYERS[name]()
    half.build(x.shape)
    half.set_weights(single.get_weights())
    out = half(x)
    assert out.dtype.name == policy.removeprefix("mixed_")
    np.testing.assert_allclose(tf.cast(out, "float32"), wanted, atol=0.06)


@pytest.mark.parametrize("name", ["window", "shifted", "merging", "self", "positions"])
def test_every_weight_gets_a_gradient_in_a_graph(name):
    x, layer = tf.constant(input_of(name)), LAYERS[name]()
    randomized(layer, x.shape)

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(layer(x)))
        return [tf.convert_to_tensor(g) for g in tape.gradient(loss, layer.trainable_variables)]

    assert all(np.abs(gradient).sum() > 0 for gradient in gradients())


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda: WindowAttention(2, 3), (None, 8, 8, 6), "Windows must divide .* window=2"),
        (lambda: WindowAttention(4, 4), (None, 8, 8, 6), "`num_heads` must divide the channels"),
        (lambda: WindowAttention(2, 4), (None, None, 8, 6), "of known sides.*`SelfAttention`"),
        (lambda: WindowAttention(2, 4), (None, 8, 6), "takes a grid"),
        (lambda: WindowAttention(2, 4, 4), None, "`shift` must be below `window`"),
        (PatchMerging, (None, 3, 4, 6), "joins 2x2 neighbours of a grid with known, even sides"),
        (lambda: SelfAttention(4), (None, 5, 6), "`num_heads` must divide the channels"),
        (lambda: SelfAttention(2), (None, 4, 4, 6), r"takes \(batch, positions, channels\)"),
        (PositionEmbedding, (None, None, 6), "of known length"),
        (lambda: DropPath(1.0), None, "`rate` must be at least 0 and below 1"),
    ],
)
def test_what_does_not_fit_is_refused(make, shape, message):
    with pytest.raises(ValueError, match=message):
        make().build(shape)


@pytest.mark.parametrize("argument", ["num_heads", "window", "shift"])
def test_sizes_that_are_no_integers_are_refused(argument):
    sizes = {"num_heads": 2, "window": 4, "shift": 1, argument: 1.5}
    with pytest.raises(TypeError, match=f"`{argument}` must be an integer"):
        WindowAttention(**sizes)
