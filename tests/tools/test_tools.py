"""MLflow, KerasTuner, scikit-learn's wrappers and TensorBoard on small models."""

import warnings

import keras
import numpy as np
import pytest

import keras_trgl as trgl

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype("float32")
Y = np.arange(24) % 3
LOSS = keras.losses.SparseCategoricalCrossentropy


def dense(rate=0.01, **options):
    blocks = [keras.layers.Dense(6) for _ in range(2)]
    model = trgl.GreedyModel.from_blocks(
        blocks, [1, 1], trgl.heads.LinearHead(3), method="vangl", seed=0, **options
    )
    model.compile(keras.optimizers.SGD(rate), LOSS(from_logits=True), metrics=["accuracy"])
    return model


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """MLflow with a folder for its runs; its own deprecations are not ours."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow

        mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
        yield mlflow
        for flavor in (mlflow.keras, mlflow.tensorflow):
            flavor.autolog(disable=True)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("flavor", ["keras", "tensorflow"])
def test_mlflow_logs_a_run_and_changes_nothing(mlflow, flavor):
    plain = dense().fit(X, Y, epochs=3, batch_size=8, verbose=0).history
    getattr(mlflow, flavor).autolog(log_models=False)
    with mlflow.start_run() as run:
        history = dense().fit(X, Y, epochs=3, batch_size=8, verbose=0).history
    assert history == plain
    told = mlflow.get_run(run.info.run_id)
    assert told.data.params["batch_size"] == "8"
    for name in ("loss", "accuracy", "stage_1_loss"):
        assert told.data.metrics[name] == pytest.approx(plain[name][-1])
    # MLflow counts the batches.
    assert '"features_cardinality": 3' in told.inputs.dataset_inputs[0].dataset.profile


@pytest.mark.sampled(1)
@pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning")
@pytest.mark.parametrize("kind", ["RandomSearch", "Hyperband"])
def test_keras_tuner_finds_a_rate(kind, tmp_path):
    import keras_tuner

    def build(hyper):
        return dense(hyper.Choice("rate", [0.0, 0.1]))

    more = {"max_trials": 2} if kind == "RandomSearch" else {"max_epochs": 2, "factor": 2}
    tuner = getattr(keras_tuner, kind)(
        build, "val_loss", directory=tmp_path, project_name="p", seed=0, **more
    )
    tuner.search(X, Y, epochs=2, validation_data=(X, Y), verbose=0)
    assert tuner.get_best_hyperparameters()[0].get("rate") == 0.1
    best = tuner.get_best_models()[0]
    assert isinstance(best, trgl.GreedyModel)
    assert best.predict(X, verbose=0).shape == (24, 3)


def test_scikit_learn_wrappers_fit_and_score():
    from sklearn.model_selection import cross_val_score

    def model_of(X, y, classes=3):
        blocks = [keras.layers.Dense(6), keras.layers.Dense(6)]
        model = trgl.GreedyModel.from_blocks(
            blocks, [1, 1], trgl.heads.LinearHead(classes), method="vangl", seed=0
        )
        model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
        return model

    wrapper = keras.wrappers.SKLearnClassifier(model_of, fit_kwargs={"epochs": 1, "verbose": 0})
    assert wrapper.fit(X, Y).predict(X).shape[0] == 24
    scores = cross_val_score(wrapper, X, Y, cv=2)
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()


def test_scikit_learn_regressor_and_transformer():
    def model_of(X, y):
        model = trgl.GreedyModel(
            [[keras.layers.Dense(6)], [keras.layers.Dense(6)]],
            [trgl.heads.LinearHead(1)] * 2,
            method="vangl",
        )
        model.compile("sgd", "mse")
        return model

    wrapper = keras.wrappers.SKLearnRegressor(model_of, fit_kwargs={"epochs": 1, "verbose": 0})
    assert len(wrapper.fit(X, X[:, 0]).predict(X)) == 24


def test_tensorboard_finds_an_embedding_and_writes_every_block(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = RNG.integers(0, 10, (24, 4))
    heads = [keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)]) for _ in range(2)]
    model = trgl.GreedyModel(
        [[keras.layers.Embedding(10, 4, name="words")], [keras.layers.Dense(4, name="block")]],
        heads,
        method="vangl",
        seed=0,
    )
    model.compile("sgd", LOSS(from_logits=True))
    board = keras.callbacks.TensorBoard(
        tmp_path, histogram_freq=1, embeddings_freq=1, embeddings_metadata={"words": "words.tsv"}
    )
    model.fit(words, Y, verbose=0, callbacks=[board])
    config = (tmp_path / "projector_config.pbtxt").read_text(encoding="utf-8")
    assert "words.tsv" in config
    assert "embeddings" in config
    assert (tmp_path / "train" / "keras_embedding.ckpt-0.weights.h5").exists()
    events = EventAccumulator(str(tmp_path / "train"))
    events.Reload()
    tags = events.Tags()["tensors"]
    assert "epoch_stage_1_loss" in tags
    assert any("block" in tag for tag in tags)
