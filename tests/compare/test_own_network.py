"""A comparison on a network of the user's own."""

import keras
import numpy as np
import pytest

from keras_trgl.compare import runs
from keras_trgl.compare.measuring import extra_nets
from keras_trgl.compare.own_network import mark_of
from keras_trgl.compare.settings import Settings
from keras_trgl.compare.spaces import RATE
from keras_trgl.compare.trainings import Training, make_model

L = keras.layers


def net(shape=(8, 8, 1), width=8, top=False):
    given = keras.Input(shape)
    x = L.Conv2D(width, 3, padding="same")(given)
    for _ in range(3):
        branch = L.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = L.Add()([x, branch])
    if top:
        x = L.Dense(10)(L.GlobalAveragePooling2D()(x))
    return keras.Model(given, x)


def strange():
    @keras.saving.register_keras_serializable("mine")
    class Strange(L.Layer):
        def call(self, x):
            return 2 * x

    given = keras.Input((8, 8, 1))
    model = keras.Model(given, Strange()(L.Conv2D(4, 3)(given)))
    keras.saving.get_custom_objects().pop("mine>Strange")
    return model


@pytest.fixture
def own(tmp_path):
    net().save(tmp_path / "own.keras")
    return str(tmp_path / "own.keras")


def settings_of(network, *methods, **options):
    small = {"limit": 96, "stages": 2, "epochs": 1, "seeds": 1, "trials": 1}
    return Settings(methods=methods or ("vangl",), network=network, **{**small, **options})


def weights(settings, seed, method="vangl"):
    training = Training(method, {RATE: 0.01}, seed, "test", 1)
    model = make_model(settings, training, settings.load())
    return model, [keras.ops.convert_to_numpy(one) for one in model.stages[0].weights]


def test_every_training_has_new_weights_of_its_seed(own):
    settings = settings_of(own)
    (model, first), (_, again), (_, other) = (weights(settings, seed) for seed in (3, 3, 4))
    assert model.num_stages == 2
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    saved = keras.saving.load_model(own).get_weights()
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[0], saved[0])


def test_its_stages_are_split_by_memory_too(own):
    model, _ = weights(settings_of(own, split="memory"), 0)
    assert extra_nets(model)["stage_sizes"] == [1, 2]


def test_open_sides_are_those_of_the_images(tmp_path):
    net((None, None, 1)).save(tmp_path / "open.keras")
    model, _ = weights(settings_of(str(tmp_path / "open.keras")), 0)
    assert model.predict_on_batch(np.zeros((2, 8, 8, 1), "float32")).shape == (2, 10)


def test_a_comparison_runs_on_it(own, tmp_path):
    methods = ("trgl", "info_pro", "end_to_end")
    settings = settings_of(own, *methods)
    found = runs.Comparison(settings, tmp_path / "out", 1, lambda text: None).run(measures=False)
    assert set(found["results"]) == set(methods)
    assert sum(found["results"]["trgl"]["stage_sizes"]) == 3
    assert "own.keras in 2 stages" in (tmp_path / "out" / "table.md").read_text()


def test_another_model_under_the_same_name_is_another_network(own):
    before = mark_of(own)
    mark_of.cache_clear()
    net(width=4).save(own)
    assert mark_of(own) != before
    assert mark_of("resnet20") == "resnet20"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "must be a file where it ends in `.keras`"),
        (lambda path: path.write_text("hi"), "must be a model that Keras saved"),
        (
            lambda path: net((8, 8, 3)).save(path),
            r"which takes \(8, 8, 3\); images are \(8, 8, 1\)",
        ),
        (lambda path: net(top=True).save(path), "`include_top=False`|top"),
        (lambda path: strange().save(path), "needs `mine>Strange`"),
    ],
    ids=["absent", "damaged", "other images", "with its top", "a layer of one's own"],
)
def test_what_will_not_do_is_refused_before_anything_trains(tmp_path, make, said):
    path = tmp_path / "own.keras"
    make(path)
    with pytest.raises(ValueError, match=said) as told:
        runs.Comparison(settings_of(str(path)), tmp_path / "out", 1, lambda text: None).run()
    assert len(str(told.value).splitlines()) <= 5
    assert not (tmp_path / "out").exists()
