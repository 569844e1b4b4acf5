"""A model in place of blocks: sizes in its units, and progress while they are counted."""

import keras
import numpy as np
import pytest

import keras_trgl as trgl
from keras_trgl.heads import LinearHead
from keras_trgl.splitting import by_depth, by_memory, by_time, profile, published
from keras_trgl.splitting.units import units_of


def brought():
    inputs = keras.Input((8, 8, 4))
    x = inputs
    for _ in range(4):
        inner = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
        inner = keras.layers.BatchNormalization()(inner)
        x = keras.layers.Add()([x, inner])
    return keras.Model(inputs, x)


def with_skip():
    inputs = keras.Input((8, 8, 4))
    first = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    inner = keras.layers.Conv2D(4, 3, padding="same")(first)
    inner = keras.layers.Conv2D(4, 3, padding="same")(inner)
    return keras.Model(inputs, keras.layers.Concatenate()([inner, first]))


def transformer():
    tokens = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(11, 8)(tokens)
    for _ in range(3):
        x = keras.layers.Add()([x, keras.layers.Dense(8, activation="gelu")(x)])
    return keras.Model(tokens, x)


SPLITS = {
    "depth": lambda model: by_depth(model, 2),
    "memory": lambda model: by_memory(model, 2, LinearHead(3)),
    "memory without a head": lambda model: by_memory(model, 2),
    "time": lambda model: by_time(model, 2, batch=2, head=LinearHead(3), verbose=0),
}


@pytest.mark.parametrize("split", SPLITS)
def test_sizes_in_units_are_cuts_of_the_model(split):
    model = brought()
    before = model.get_weights()
    sizes = SPLITS[split](model)
    assert (len(sizes), sum(sizes)) == (2, 4)
    assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True))
    made = trgl.GreedyModel.from_model(model, sizes, LinearHead(3), seed=0)
    assert made.num_stages == 2


def test_a_model_of_tokens_has_a_profile_of_its_units():
    model = transformer()
    costs = profile(model, 2, LinearHead(3), repeats=1)
    assert len(costs.block_seconds) == len(units_of(model)) == 3
    assert min(costs.block_seconds) > 0
    # A GELU keeps more than what comes in and goes out, which is all that rules could see.
    assert min(costs.block_bytes) > 2 * 2 * 6 * 8 * 4
    assert costs.stage_bytes(0, 3) > costs.stage_bytes(0, 1)
    assert by_time(model, 3, costs) == [1, 1, 1]


def test_a_skip_across_cuts_is_counted_and_measured():
    model = with_skip()
    costs = profile(model, 2, repeats=1)
    assert len(costs.block_seconds) == len(by_depth(model, len(costs.block_seconds)))
    assert min(costs.block_seconds) > 0
    assert trgl.plan(model, 4, 2**30, head=LinearHead(3)).predicted_bytes > 0


def test_published_sizes_are_of_as_many_blocks():
    assert published("trgl_swin_tiny", 4, range(12)) == [2, 2, 6, 2]
    with pytest.raises(ValueError, match="was published for a network of 12 blocks"):
        published("trgl_swin_tiny", 4, brought())


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        (3, TypeError, "`blocks` must be a list of layers"),
        (keras.Sequential([keras.layers.Dense(3)]), ValueError, "whose graph is not known"),
    ],
)
def test_what_has_no_units_is_refused(given, kind, said):
    with pytest.raises(kind, match=said):
        by_depth(given, 1)


def test_counting_shows_progress_where_it_is_asked_for(capsys):
    blocks = trgl.architectures.resnet(8, (8, 8, 1), widths=(2, 2, 2))
    trgl.plan(blocks, 4, 2**30, head=LinearHead(3), optimizer="sgd", verbose=1)
    assert "3/3" in capsys.readouterr().out
    profile(blocks, 2, repeats=1, verbose=1)
    assert "kind" in capsys.readouterr().out
