"""The mistakes of a first day, one a row: what came, and what the message says."""

import keras
import numpy as np
import pytest

import keras_trgl as trgl
from keras_trgl.heads import ConvHead, LinearHead
from keras_trgl.methods import TRGL
from keras_trgl.regimes import Buffered, MultiLap, Parallel, Regime, Sequential, StopStage

Dense = keras.layers.Dense
X, Y = np.zeros((8, 6), "float32"), np.arange(8) % 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
from_blocks, from_model = trgl.GreedyModel.from_blocks, trgl.GreedyModel.from_model


def blocks():
    return [Dense(6) for _ in range(2)]


def model(**options):
    # Dense blocks have no residual, of which TRGL would warn.
    options = {"method": "vangl", **options}
    made = from_blocks(blocks(), [1, 1], LinearHead(3), seed=0, **options)
    made.build((None, 6))
    return made


def compiled(optimizer="sgd", loss=LOSS, **options):
    made = model()
    made.compile(optimizer, loss, **options)
    return made


def fit(*setting, **options):
    return compiled(*setting).fit(X, Y, verbose=0, **options)


def functional():
    return keras.Sequential([keras.Input((6,)), Dense(6), Dense(6)])


class FromOne(Regime):
    """Counts stages from 1, as everything else that a user sees does."""

    def plan(self, num_stages, epoch=0):
        return tuple(range(1, num_stages + 1))


def of_regime(regime):
    made = model(regime=regime)
    made.compile("sgd", LOSS)
    return made.fit(X, Y, verbose=0)


A_LIST = "must be a list of layers, one per stage. Received: "
A_HEAD = r"`head` must be a Keras layer, or a list of one per stage. Received: head="
MISTAKES = {
    # Stages and heads.
    "too few heads": (lambda: trgl.GreedyModel(blocks(), [LinearHead(3)]), "2 stages, 1 heads"),
    "a list of too few": (lambda: from_blocks(blocks(), [1, 1], [LinearHead(3)]), "1 heads"),
    "one head for a list": (lambda: trgl.GreedyModel(blocks(), LinearHead(3)), A_LIST),
    "a number for heads": (lambda: trgl.GreedyModel(blocks(), 10), A_LIST + "heads=10"),
    "nothing for heads": (lambda: trgl.GreedyModel(blocks(), None), A_LIST + "a NoneType"),
    "a model for stages": (
        lambda: trgl.GreedyModel(functional(), [LinearHead(3)]),
        A_LIST + r"a Sequential.*from_model\(model, cuts, head\)",
    ),
    "a layer for stages": (lambda: trgl.GreedyModel(Dense(3), [LinearHead(3)]), A_LIST),
    "a model for blocks": (
        lambda: from_blocks(functional(), [1, 1], LinearHead(3)),
        "`blocks` must be a list of layers. Received: a Sequential.*from_model",
    ),
    "classes of heads": (
        lambda: trgl.GreedyModel(blocks(), [LinearHead] * 2),
        "Received: <class .*Call a class to make a layer of it",
    ),
    "classes of blocks": (
        lambda: from_blocks([Dense, Dense], [1, 1], LinearHead(3)),
        "Call a class to make a layer of it",
    ),
    "a class of a head": (lambda: from_blocks(blocks(), [1, 1], LinearHead), A_HEAD),
    "a number for a head": (
        lambda: from_blocks(blocks(), [1, 1], 7),
        A_HEAD + r"7. Give an object, for 7 classes `heads.LinearHead\(7\)`",
    ),
    "a name for a head": (lambda: from_blocks(blocks(), [1, 1], "linear"), A_HEAD + "'linear'"),
    "a head's class, of a model": (lambda: from_model(functional(), 2, LinearHead), A_HEAD),
    "a head's number, of a model": (lambda: from_model(functional(), 2, 10), A_HEAD + "10"),
    "a class in a stage": (lambda: trgl.layers.Stage([Dense]), "`blocks` must be a Keras layer"),
    "a class in a branch": (
        lambda: trgl.layers.ResidualBlock([Dense]),
        "`branch` must be a Keras layer",
    ),
    "units of text": (lambda: LinearHead("3"), "`units` must be an integer"),
    "no units": (lambda: ConvHead(0), "`units` must be at least 1"),
    # Sizes and splits.
    "a number of stages": (
        lambda: from_blocks(blocks(), 2, LinearHead(3)),
        r"`stage_sizes` must be a list of ints.*stage_sizes=2. .*splitting.by_depth",
    ),
    "a rule's name": (lambda: from_blocks(blocks(), "depth", LinearHead(3)), "='depth'"),
    "sizes of text": (
        lambda: from_blocks(blocks(), ["1", "1"], LinearHead(3)),
        "`stage_sizes` must be an integer. Received: stage_sizes='1'",
    ),
    "more than there are": (
        lambda: from_blocks(blocks(), [2, 2], LinearHead(3)),
        "must sum to the number of blocks, 2",
    ),
    "by_memory of what is cut": (
        lambda: trgl.splitting.by_memory(model(), 3),
        "of type GreedyModel, which is cut into stages",
    ),
    "by_time of what is cut": (
        lambda: trgl.splitting.by_time(model(), 3),
        "of type GreedyModel, which is cut into stages",
    ),
    "by_depth of a number": (lambda: trgl.splitting.by_depth(4, 2), "blocks=4"),
    "more stages than blocks": (
        lambda: trgl.splitting.by_depth(blocks(), 3),
        "at most as many stages as blocks, 2",
    ),
    "a cut too many": (lambda: from_model(functional(), 9, LinearHead(3)), "must be at most 2"),
    "sizes of another sum": (
        lambda: from_model(functional(), [1, 2], LinearHead(3)),
        r"number of units, 2. Received: cuts=\[1, 2\], which sum to 3",
    ),
    "no cuts": (lambda: from_model(functional(), None, LinearHead(3)), "a list of sizes in units"),
    "a cut nowhere": (lambda: from_model(functional(), ["x"], LinearHead(3)), "name layers"),
    "a list for a model": (lambda: from_model(blocks(), 2, LinearHead(3)), "a functional Keras"),
    # Methods and regimes.
    "a class of a method": (lambda: model(method=TRGL), "a class instead of an object"),
    "another method": (lambda: model(method="nobody"), "must be one of 'trgl', 'vangl'"),
    "a class of a regime": (lambda: model(regime=Parallel), "a class instead of an object"),
    "tau of text": (lambda: TRGL("1"), "`tau` must be a number above 0"),
    "no tau": (lambda: TRGL(0), "`tau` must be above 0 and finite"),
    "no epochs": (lambda: Sequential(epochs=0), "at least 1"),
    "epochs of text": (lambda: Sequential(epochs="3"), "must be an integer"),
    "no laps": (lambda: MultiLap(num_laps=0), "at least 1"),
    "a store of none": (lambda: Buffered(capacity=0), "at least 1"),
    "patience of text": (lambda: StopStage(patience="2"), "`patience` must be an integer"),
    "a plan from 1": (
        lambda: of_regime(FromOne()),
        r"0 to 1, at least one. Received: \(1, 2\) from FromOne. Stage 1 is position 0",
    ),
    # Compiling and training.
    "losses by name": (lambda: compiled(loss={"nope": LOSS}), r"must be one loss.*\['nope'\]"),
    "losses of other stages": (lambda: compiled(loss=[LOSS] * 3), "Received: a list of 3"),
    "a class of a loss": (
        lambda: compiled(loss=keras.losses.MeanSquaredError),
        "`loss` must hold objects.*Received: the class MeanSquaredError",
    ),
    "a class of a metric": (
        lambda: compiled(metrics=[keras.metrics.AUC]),
        "`metrics` must hold objects.*the class AUC",
    ),
    "a metric, no list": (lambda: compiled(metrics="mae"), r"Give `metrics=\['mae'\]`"),
    "a class of an optimizer": (
        lambda: compiled(keras.optimizers.SGD),
        r"Received: the class SGD. Call it: `SGD\(0.01\)`",
    ),
    "too few optimizers": (lambda: compiled(["sgd"]), "a list of 2, one per stage"),
    "no steps in an execution": (lambda: compiled(steps_per_execution=0), "must be at least 1"),
    "no optimizer": (
        lambda: fit(None),
        r"Training needs an optimizer. Received: compile\(optimizer=None\)",
    ),
    "no loss": (lambda: fit("sgd", None), "Every head needs a loss"),
    "not compiled": (lambda: model().fit(X, Y), "must be compiled before it is trained"),
    "a class of a callback": (
        lambda: fit(callbacks=[keras.callbacks.EarlyStopping]),
        "must be Keras callbacks.*the class EarlyStopping. Give objects",
    ),
    "a callback's name": (lambda: fit(callbacks=["x"]), "must be Keras callbacks"),
    "epochs of text, in fit": (lambda: fit(epochs="3"), "`epochs` must be an integer"),
    "half an epoch": (lambda: fit(epochs=1.5), "`epochs` must be an integer"),
    "batches of none": (lambda: fit(batch_size=0), "`batch_size` must be at least 1"),
    "an epoch before the first": (lambda: fit(initial_epoch=-1), "`initial_epoch` must be at"),
    "no steps": (lambda: fit(steps_per_epoch=0), "`steps_per_epoch` must be at least 1"),
    "all is validation": (lambda: fit(validation_split=1.0), "leave examples on both sides"),
    # Depths and shapes.
    "depth 0": (lambda: model().truncate(0), "must be 1 to 2"),
    "depth of text": (lambda: model().truncate("2"), "must be an int"),
    "depth with a point": (lambda: model().truncate(1.0), "must be an int"),
    "all depths": (lambda: model().truncate("all"), "`truncate` gives one depth.*predict_exits"),
    "a depth's export": (
        lambda: trgl.export.export_litert(model(), "2", "a"),
        "`depth` must be an integer",
    ),
    "an export turned round": (lambda: trgl.export.export_litert(model(), "a", 1), "from 1 to 2"),
    "a plain model's export": (
        lambda: trgl.export.export_litert(functional(), 1, "a"),
        "must be a `GreedyModel`",
    ),
    "a shape without a batch": (lambda: from_blocks(blocks(), [2], LinearHead(3)).build(6), "=6"),
    "no shape": (lambda: from_blocks(blocks(), [2], LinearHead(3)).build(None), "batch axis first"),
    "exits before it is built": (
        lambda: from_blocks(blocks(), [2], LinearHead(3)).predict_exits(X),
        "Received: an unbuilt model",
    ),
    # Architectures and data.
    "no such depth": (lambda: trgl.architectures.resnet(9, (8, 8, 1)), "Received: depth=9"),
    "a shape's number": (
        lambda: trgl.architectures.resnet(8, 8),
        "`input_shape` must be a list of ints.*input_shape=8",
    ),
    "no such data": (lambda: trgl.datasets.load("cifar"), "Received: .*'cifar'"),
    "a class for data": (lambda: trgl.datasets.load(dict), "Received: "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_the_way_out_in_five_lines(mistake):
    call, said = MISTAKES[mistake]
    with pytest.raises((ValueError, TypeError), match=said) as caught:
        call()
    text = str(caught.value)
    assert "Received" in text
    assert len(text.splitlines()) <= 5


def test_a_model_without_an_optimizer_is_evaluated_and_saved_as_in_keras(tmp_path):
    trained = compiled()
    wanted = trained.evaluate(X, Y, verbose=0)
    trained.compile(optimizer=None, loss=LOSS)
    assert trained.optimizer is None
    assert trained.evaluate(X, Y, verbose=0) == wanted
    assert trained.test_on_batch(X, Y) == pytest.approx(wanted)
    with pytest.raises(ValueError, match="Training needs an optimizer"):
        trained.train_on_batch(X, Y)
    trained.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    assert loaded.evaluate(X, Y, verbose=0) == wanted
    trained.summary(print_fn=lambda text: None)


def test_depths_may_be_numpy_integers():
    made = model()
    assert made.truncate(np.int64(1)).output_shape == (None, 3)
