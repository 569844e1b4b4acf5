"""Saving and loading: whole files or none, and training that goes on bit for bit."""

import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_trgl as trgl
from keras_trgl.architectures import resnet
from keras_trgl.heads import ConvHead

pytestmark = pytest.mark.sampled(2)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 8, 8, 1)).astype("float32")
Y = RNG.integers(0, 3, 20)
RATE = keras.optimizers.schedules.CosineDecay


def make(sizes=(2, 1), optimizer=None, seed=0):
    blocks = resnet(8, (8, 8, 1), widths=(4, 8, 8))
    model = trgl.GreedyModel.from_blocks(
        blocks, sizes, ConvHead(3), method=trgl.methods.TRGL([0.5] * len(sizes)), seed=seed
    )
    model.compile(
        optimizer or keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def train(model, epochs, first=0):
    model.fit(X, Y, batch_size=8, epochs=epochs, initial_epoch=first, verbose=0)


GO_ON = """
import sys, numpy as np, keras_trgl as trgl
model = trgl.load_model(sys.argv[1])
data = np.load(sys.argv[2])
assert model.compiled and model.optimizer.built
model.fit(data["x"], data["y"], batch_size=8, epochs=4, initial_epoch=2, verbose=0)
np.savez(sys.argv[3], *[w.numpy() for w in model.weights])
"""


@pytest.mark.long
@pytest.mark.sampled(1)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_goes_on_in_a_fresh_process_bit_for_bit(tmp_path, optimizer):
    options = {
        "sgd": lambda: keras.optimizers.SGD(RATE(0.05, 12), momentum=0.9),
        "adamw": lambda: keras.optimizers.AdamW(0.01, clipnorm=1.0),
    }[optimizer]
    whole, half = make(optimizer=options()), make(optimizer=options())
    train(whole, 4)
    train(half, 2)
    half.save(tmp_path / "half.keras")
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    paths = [str(tmp_path / name) for name in ("half.keras", "data.npz", "after.npz")]
    # One thread, as in this process under test workers: reductions then add in one order.
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    setup = (
        "import tensorflow as tf\n"
        f"tf.config.threading.set_intra_op_parallelism_threads({threads})\n"
    )
    subprocess.run([sys.executable, "-c", setup + GO_ON, *paths], check=True)
    with np.load(paths[2]) as after:
        for one, name in zip(whole.weights, after.files, strict=True):
            np.testing.assert_array_equal(one.numpy(), after[name])


def test_a_loaded_model_is_the_saved_one(tmp_path):
    model = make()
    train(model, 1)
    model.stages[0].regularizer.tau = 0.125
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, trgl.GreedyModel)
    assert loaded.stages[0].regularizer.tau == 0.125
    assert loaded.method.get_config() == model.method.get_config()
    for one, other in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    ours, theirs = model.optimizer.variables, loaded.optimizer.variables
    assert len(ours) > 10
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert loaded.evaluate(X, Y, verbose=0) == model.evaluate(X, Y, verbose=0)


def test_a_model_that_is_not_compiled_is_saved_too(tmp_path):
    blocks = resnet(8, (8, 8, 1), widths=(4, 8, 8))
    model = trgl.GreedyModel.from_blocks(blocks, [2, 1], ConvHead(3), seed=0)
    model.save(tmp_path / "model.keras")
    loaded = trgl.load_model(tmp_path / "model.keras")
    assert not loaded.compiled
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))


def test_weights_alone_are_saved_and_loaded(tmp_path):
    model, other = make(seed=0), make(seed=1)
    train(model, 1)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other.predict(X, verbose=0), model.predict(X, verbose=0))


def test_a_truncated_model_is_plain_keras_without_energy(tmp_path):
    model = make()
    train(model, 1)
    short = model.truncate(1)
    assert type(short) is keras.Model or short.__class__.__name__ == "Functional"
    short(X, training=True)
    assert short.losses == []
    short.save(tmp_path / "depth1.keras")
    loaded = keras.saving.load_model(tmp_path / "depth1.keras")
    np.testing.assert_array_equal(
        loaded.predict(X, verbose=0), model.predict_exits(X, verbose=0)[0]
    )


def test_a_truncated_model_shares_the_weights():
    model = make()
    short = model.truncate(2)
    short.layers[-1].layers_in_a_row[-1].bias.assign([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(model.heads[1].layers_in_a_row[-1].bias.numpy(), [1.0, 2.0, 3.0])


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_cut_short_is_named_and_refused(tmp_path, share):
    path = tmp_path / "model.keras"
    make().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="cut short or damaged"):
        trgl.load_model(path)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    make().save(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(b ^ 255 for b in content[middle : middle + 64])
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cut short or damaged"):
        trgl.load_model(path)


def test_a_file_that_unpacks_to_far_more_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    make().save(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(50 * 2**20))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("It was read."))
    with pytest.raises(
        ValueError, match=r"unpack to at most .* Received: .*model.keras, of 5\d{7}"
    ):
        trgl.load_model(path)


def test_a_file_that_was_packed_again_loads(tmp_path):
    model, path, packed = make(), tmp_path / "model.keras", tmp_path / "packed.keras"
    model.save(path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    for one, other in zip(trgl.load_model(packed).weights, model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"must be a saved `.keras` file"):
        trgl.load_model("nowhere.keras")


def test_weights_of_another_model_change_nothing(tmp_path):
    make((1, 1, 1)).save_weights(tmp_path / "other.weights.h5")
    model = make()
    before = [variable.numpy() for variable in model.variables]
    with pytest.raises(ValueError, match=r"do not fit this model .*its weights are as they were"):
        model.load_weights(tmp_path / "other.weights.h5")
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


@pytest.mark.parametrize("way", ["save", "save_weights"])
def test_an_interrupted_save_leaves_the_old_file_whole(tmp_path, monkeypatch, way):
    name = {"save": "model.keras", "save_weights": "model.weights.h5"}[way]
    path = tmp_path / name
    model = make()
    getattr(model, way)(path)
    before = path.read_bytes()

    def interrupted(self, store):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(model.heads[1]), "save_own_variables", interrupted)
    with pytest.raises(KeyboardInterrupt):
        getattr(model, way)(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_file_is_kept_if_asked(tmp_path):
    path = tmp_path / "model.keras"
    make().save(path)
    with pytest.raises(FileExistsError, match="overwrite=False"):
        make().save(path, overwrite=False)
