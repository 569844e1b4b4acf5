"""Every form in which Keras saves a model: whole, or not there, under the user's name."""

import os
import pathlib
import stat

import keras
import numpy as np
import pytest

import keras_trgl as trgl

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype("float32")
Y = RNG.integers(0, 3, 24)


def make(seed=0, units=3):
    blocks = [
        trgl.layers.ResidualBlock([keras.layers.Dense(6)], input_shape=None if k else (6,))
        for k in range(2)
    ]
    model = trgl.GreedyModel.from_blocks(blocks, [1, 1], trgl.heads.LinearHead(units), seed=seed)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.fixture(scope="module")
def trained():
    model = make()
    model.fit(X, Y, batch_size=8, verbose=0)
    return model


def by_weights(model, path):
    other = make(seed=9)
    other.load_weights(path)
    return other


def by_model(model, path):
    return keras.saving.load_model(path)


FORMS = {
    "model": ("m.keras", "save", {}, by_model),
    "unzipped_model": ("folder", "save", {"zipped": False}, by_model),
    "weights": ("m.weights.h5", "save_weights", {}, by_weights),
    "shards": ("m.weights.json", "save_weights", {"max_shard_size": 3e-7}, by_weights),
    "one_shard": ("m.weights.json", "save_weights", {"max_shard_size": 1.0}, by_weights),
}


@pytest.mark.parametrize("times", [1, 2], ids=["new", "over_the_old"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_comes_back(trained, tmp_path, form, times):
    name, way, options, load = FORMS[form]
    for _ in range(times):
        getattr(trained, way)(tmp_path / name, **options)
    loaded = load(trained, tmp_path / name)
    for one, other in zip(trained.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".")]


def contents(folder):
    return {
        str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()
    }


@pytest.mark.parametrize("form", FORMS)
def test_a_save_that_fails_leaves_the_old_one_whole(trained, tmp_path, monkeypatch, form):
    name, way, options, _ = FORMS[form]
    getattr(trained, way)(tmp_path / name, **options)
    before = contents(tmp_path)

    def broken(self, store):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(trained.heads[1]), "save_own_variables", broken)
    with pytest.raises(KeyboardInterrupt):
        getattr(trained, way)(tmp_path / name, **options)
    assert contents(tmp_path) == before


REFUSED = {
    "old_format": ("save", "m.h5", {}, r"`\.keras`, weights alone in `\.weights\.h5`"),
    "old_ending": ("save", "m.hdf5", {}, r"old HDF5 format cannot be loaded again"),
    "old_weights": ("save_weights", "m.h5", {}, r"weights alone in `\.weights\.h5`"),
    "no_ending": ("save", "m", {}, "Invalid filepath extension"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_saved_is_said_with_the_users_path(trained, tmp_path, case):
    way, name, options, said = REFUSED[case]
    with pytest.raises(ValueError, match=said) as caught:
        getattr(trained, way)(tmp_path / name, **options)
    assert str(tmp_path / name) in str(caught.value)
    assert "aside" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_system_stays_one_and_names_the_users_path(trained, tmp_path):
    with pytest.raises(FileNotFoundError):
        trained.save(tmp_path / "nowhere" / "m.keras")
    (tmp_path / "taken.keras").mkdir()
    file = tmp_path / "a_file"
    file.write_text("text")
    with pytest.raises(NotADirectoryError):
        trained.save(file / "m.keras")


def test_an_error_speaks_of_the_users_path(tmp_path):
    from keras_trgl.keeping.saving import saved_aside

    target = tmp_path / "m.keras"
    with pytest.raises(OSError, match="No space left") as caught, saved_aside(target) as aside:
        raise OSError(28, "No space left on device", aside)
    assert caught.value.filename == str(target)
    with pytest.raises(ValueError, match="Received") as caught, saved_aside(target) as aside:
        raise ValueError(f"Received: {aside}")
    assert str(caught.value) == f"Received: {target}"


def test_parts_can_be_skipped_in_loading(trained, tmp_path):
    trained.save_weights(tmp_path / "m.weights.h5")
    other = make(seed=9, units=5)
    heads = [head.get_weights() for head in other.heads]
    other.load_weights(tmp_path / "m.weights.h5", objects_to_skip=list(other.heads))
    for one, two in zip(trained.stages, other.stages, strict=True):
        for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    for head, before in zip(other.heads, heads, strict=True):
        for a, b in zip(head.get_weights(), before, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_saved_file_has_the_rights_of_any_new_file(trained, tmp_path):
    trained.save(tmp_path / "m.keras")
    (tmp_path / "plain").write_text("")
    rights = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("m.keras", "plain")]
    assert rights[0] == rights[1]


def test_a_relative_name_is_saved_in_the_working_folder(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained.save("m.keras")
    assert [one.name for one in pathlib.Path().iterdir()] == ["m.keras"]


OWN = """
import keras, keras_trgl as trgl
register = keras.saving.register_keras_serializable("mine")
@register
class Halved(trgl.methods.LocalMethod):
    def stage_losses(self, step):
        return {"task": 0.5 * step.task_loss}
@register
class Halving(keras.layers.Layer):
    def call(self, x):
        return x / 2
@register
def halved_loss(y, p):
    return keras.losses.mean_squared_error(y, p) / 2
"""


@pytest.mark.parametrize("unknown", ["Halved", "Halving", "halved_loss"])
def test_a_class_that_is_not_known_is_named_in_a_sentence(tmp_path, unknown):
    space = {}
    exec(OWN, space)
    own = space["Halving"]() if unknown == "Halving" else keras.layers.Activation("tanh")
    stages = [[keras.layers.Dense(6), own], [keras.layers.Dense(6)]]
    method = space["Halved"]() if unknown == "Halved" else "vangl"
    model = trgl.GreedyModel(stages, [trgl.heads.LinearHead(3) for _ in stages], method)
    model.compile("sgd", space["halved_loss"] if unknown == "halved_loss" else "mse")
    model.build((None, 6))
    model.save(tmp_path / "m.keras")
    keras.saving.get_custom_objects().pop(f"mine>{unknown}")
    with pytest.raises(ValueError, match=f"must be known. Received: `{unknown}`") as told:
        keras.saving.load_model(tmp_path / "m.keras")
    assert len(str(told.value)) < 400
    given = {f"mine>{unknown}": space[unknown]}
    assert f"custom_objects={{'mine>{unknown}': {unknown}}}" in str(told.value)
    back = keras.saving.load_model(tmp_path / "m.keras", custom_objects=given)
    np.testing.assert_array_equal(back(X), model(X))
