"""What `repr` shows of public objects: an example per class, with the text it gives."""

import functools
import importlib
import re
import types

import keras
import numpy as np
import pytest

import keras_trgl as trgl
from keras_trgl.network.summary import in_short

Block = functools.partial(trgl.layers.ResidualBlock, name="block")


def model(**options):
    blocks = trgl.architectures.resnet(8, (8, 8, 1), widths=(2, 2, 2))
    head = trgl.heads.LinearHead(3)
    return trgl.GreedyModel.from_blocks(blocks, [2, 1], head, seed=0, name="model", **options)


def exit_choice(num_stages):
    accuracy, latency = (
        np.linspace(0.5, 0.87654, num_stages),
        np.geomspace(1e-4, 0.0123, num_stages),
    )
    curve = {"thresholds": tuple(np.linspace(0, 1, 202)), "accuracy": (0.5,) * 202}
    return trgl.export.ExitChoice(
        num_stages,
        (0.912345,) * (num_stages - 1),
        tuple(map(float, accuracy)),
        tuple(map(float, latency)),
        curve,
    )


def unaugmented(images, seeds):
    return images


EXAMPLES = {
    "Plan": (
        lambda: trgl.plan(
            [keras.layers.Dense(4) for _ in range(3)],
            8,
            2**20,
            head=trgl.heads.LinearHead(2),
            optimizer="sgd",
            method="vangl",
            input_shape=(4,),
        ),
        None,
    ),
    "FeatureCache": (
        lambda: trgl.FeatureCache("disk", max_bytes=2**30),
        "FeatureCache(kind='disk', max_bytes=1073741824)",
    ),
    # Its `repr` is `network.summary.in_short`, which has a test of its own.
    "GreedyModel": (model, None),
    "StageOptimizers": (
        lambda: trgl.StageOptimizers(
            [keras.optimizers.SGD(), keras.optimizers.SGD(), keras.optimizers.Adam()]
        ),
        "StageOptimizers(optimizers=[2 × SGD, Adam])",
    ),
    "callbacks.BackupAndRestore": (
        lambda: trgl.callbacks.BackupAndRestore("backup", save_freq=100),
        "BackupAndRestore(backup_dir='backup', save_freq=100)",
    ),
    "callbacks.DepthCheckpoint": (
        lambda: trgl.callbacks.DepthCheckpoint("best.keras", "val_loss", verbose=1),
        "DepthCheckpoint(filepath='best.keras', monitor='val_loss', verbose=1)",
    ),
    "callbacks.DepthProgbar": (trgl.callbacks.DepthProgbar, "DepthProgbar()"),
    "callbacks.MultiplierUpdate": (
        lambda: trgl.callbacks.MultiplierUpdate(h=1.0, s=50, initial=2.0),
        "MultiplierUpdate(h=1.0, s=50, initial=2.0)",
    ),
    "callbacks.WatchStages": (
        lambda: trgl.callbacks.WatchStages(np.zeros((40, 3)), every=2),
        "WatchStages(data=40 rows, every=2)",
    ),
    "diagnostics.DepthTable": (
        lambda: trgl.diagnostics.DepthTable("T", (1,), {"a": (0.5,)}, {}, {"rows": 4}),
        "DepthTable('T', depth=(1,), a=(0.5,))",
    ),
    "datasets.BatchStream": (
        lambda: trgl.datasets.BatchStream(
            np.zeros((6, 8, 8, 1), "uint8"), np.zeros(6), batch_size=4, transform=unaugmented
        ),
        "BatchStream(num_samples=6, x=(8, 8, 1) uint8, batch_size=4, transform=unaugmented)",
    ),
    "datasets.Chain": (
        lambda: trgl.datasets.Chain(trgl.datasets.Normalize([0.5], [0.25]), unaugmented),
        "Chain(Normalize(mean=[0.5], std=[0.25]), unaugmented)",
    ),
    "datasets.ImageData": (
        lambda: trgl.datasets.ImageData(
            "noise", *[np.zeros((2, 8, 8, 1), "uint8"), np.zeros(2, int)] * 2, 3, (0.5,), (0.25,)
        ),
        "ImageData('noise', input_shape=(8, 8, 1), num_classes=3, train=2, test=2)",
    ),
    "datasets.Normalize": (
        lambda: trgl.datasets.Normalize([0.5], [0.25]),
        "Normalize(mean=[0.5], std=[0.25])",
    ),
    "datasets.PadCropFlip": (
        trgl.datasets.PadCropFlip,
        "PadCropFlip(padding=4, flip=True, mode='constant')",
    ),
    "distribute.LocalWorkers": (None, None),
    "distribute.LostDeviceError": (
        lambda: trgl.distribute.LostDeviceError("Stage 2 is lost."),
        "LostDeviceError('Stage 2 is lost.')",
    ),
    "distribute.StageParallelStrategy": (
        lambda: trgl.distribute.StageParallelStrategy(["CPU:0", "CPU:1"], schedule="synchronous"),
        "StageParallelStrategy(devices=('CPU:0', 'CPU:1'), schedule='synchronous')",
    ),
    "export.Calibration": (
        lambda: trgl.export.Calibration(temperature=True),
        "Calibration(temperature=True)",
    ),
    "export.ExitChoice": (
        lambda: exit_choice(2),
        "ExitChoice(depth=2, thresholds=(0.912,), accuracy=(0.5, 0.877), "
        "latency=(0.0001, 0.0123), curve=202 points)",
    ),
    "export.ExportReport": (
        lambda: trgl.export.ExportReport("serving/1", 2048, 0.0, signatures=("a", "b")),
        "ExportReport(path='serving/1', bytes=2048, max_difference=0.0, signatures=('a', 'b'))",
    ),
    "export.Inputs": (
        lambda: trgl.export.Inputs("uint8", preprocess=unaugmented),
        "Inputs(dtype='uint8', preprocess=unaugmented)",
    ),
    "export.Outputs": (
        lambda: trgl.export.Outputs(class_names=[f"class {k}" for k in range(1000)]),
        "Outputs(class_names=['class 0', 'class 1', 'class 2', 'class 3', 'class 4', 'class 5', "
        "'class 6', 'class 7', ...])",
    ),
    "export.ServerFiles": (
        lambda: trgl.export.ServerFiles(warmup=(1, 8), labels={"stable": 1}),
        "ServerFiles(warmup=(1, 8), labels={'stable': 1})",
    ),
    "heads.BlocksHead": (
        lambda: trgl.heads.BlocksHead(10, [keras.layers.Dense(4)], name="head"),
        "BlocksHead(units=10, blocks=[Dense], kernel_initializer=GlorotUniform, name='head')",
    ),
    "heads.ConvHead": (
        lambda: trgl.heads.ConvHead(10, weight_decay=1e-4, name="head"),
        "ConvHead(units=10, weight_decay=0.0001, name='head')",
    ),
    "heads.DGLHead": (
        lambda: trgl.heads.DGLHead(10, "cnn", "zeros", name="head"),
        "DGLHead(units=10, kind='cnn', kernel_initializer=Zeros, name='head')",
    ),
    "heads.DenseHead": (
        lambda: trgl.heads.DenseHead(10, (8,), 2, name="head"),
        "DenseHead(units=10, hidden=(8,), pool=2, activation=relu, "
        "kernel_initializer=GlorotUniform, name='head')",
    ),
    "heads.Head": (lambda: trgl.heads.Head(10, name="head"), "Head(units=10, name='head')"),
    "heads.InfoProHead": (
        lambda: trgl.heads.InfoProHead(10, dense=3, name="head"),
        "InfoProHead(units=10, dense=3, kernel_initializer=GlorotUniform, name='head')",
    ),
    "heads.LinearHead": (
        lambda: trgl.heads.LinearHead(10, "zeros", name="head"),
        "LinearHead(units=10, kernel_initializer=Zeros, name='head')",
    ),
    "heads.NormHead": (
        lambda: trgl.heads.NormHead(10, "first", name="head"),
        "NormHead(units=10, pool='first', kernel_initializer=TruncatedNormal, name='head')",
    ),
    "heads.SedonaHead": (
        lambda: trgl.heads.SedonaHead(10, 2, name="head"),
        "SedonaHead(units=10, depth=2, kernel_initializer=GlorotUniform, name='head')",
    ),
    "layers.BatchNormalization": (
        lambda: trgl.layers.BatchNormalization(momentum=0.9, name="norm"),
        "BatchNormalization(momentum=0.9, epsilon=0.001, name='norm')",
    ),
    "layers.DropPath": (
        lambda: trgl.layers.DropPath(0.1, name="drop"),
        "DropPath(rate=0.1, name='drop')",
    ),
    "layers.PadShortcut": (
        lambda: trgl.layers.PadShortcut(4, name="skip"),
        "PadShortcut(channels=4, data_format='channels_last', name='skip')",
    ),
    "layers.PatchMerging": (
        lambda: trgl.layers.PatchMerging("zeros", name="merging"),
        "PatchMerging(kernel_initializer=Zeros, name='merging')",
    ),
    "layers.PositionEmbedding": (
        lambda: trgl.layers.PositionEmbedding(True, name="positions"),
        "PositionEmbedding(class_token=True, initializer=Zeros, name='positions')",
    ),
    "layers.ResidualAdd": (
        lambda: trgl.layers.ResidualAdd(name="add"),
        "ResidualAdd(name='add')",
    ),
    "layers.ResidualBlock": (
        lambda: Block([keras.layers.Dense(4), keras.layers.Dense(4)], activation="relu"),
        "ResidualBlock(branch=[2 × Dense], activation=relu, name='block')",
    ),
    "layers.SelfAttention": (
        lambda: trgl.layers.SelfAttention(2, name="attention"),
        "SelfAttention(num_heads=2, kernel_initializer=GlorotUniform, name='attention')",
    ),
    "layers.Stage": (
        lambda: trgl.layers.Stage([Block([keras.layers.Dense(4)])] * 20, name="stage_1"),
        "Stage(blocks=[20 × ResidualBlock], name='stage_1')",
    ),
    "layers.WindowAttention": (
        lambda: trgl.layers.WindowAttention(2, 4, 2, name="attention"),
        "WindowAttention(num_heads=2, window=4, shift=2, "
        "kernel_initializer=GlorotUniform, name='attention')",
    ),
    "losses.SimilarityMatching": (
        lambda: trgl.losses.SimilarityMatching(name="alike"),
        "SimilarityMatching(name='alike')",
    ),
    "methods.AugLocal": (
        lambda: trgl.methods.AugLocal(3, pyramid=True),
        "AugLocal(depth=3, pyramid=True)",
    ),
    "methods.DDG": (trgl.methods.DDG, "DDG()"),
    "methods.DNI": (lambda: trgl.methods.DNI(16), "DNI(width=16)"),
    "methods.FeaturesReplay": (
        lambda: trgl.methods.FeaturesReplay(True),
        "FeaturesReplay(doubles_first_rate=True)",
    ),
    "methods.DGL": (lambda: trgl.methods.DGL("mlp"), "DGL(head='mlp')"),
    "losses.SupervisedContrastive": (
        lambda: trgl.losses.SupervisedContrastive(0.1),
        "SupervisedContrastive(temperature=0.1)",
    ),
    "methods.EndToEnd": (trgl.methods.EndToEnd, "EndToEnd()"),
    "methods.InfoPro": (
        lambda: trgl.methods.InfoPro("contrast", (20, 5)),
        "InfoPro(variant='contrast', reconstruction_weight=[20.0, 5.0])",
    ),
    "methods.InfoProL": (
        lambda: trgl.methods.InfoProL(0.5),
        "InfoProL(reconstruction_weight=0.5)",
    ),
    "methods.LocalMethod": (trgl.methods.LocalMethod, "LocalMethod()"),
    "methods.Method": (trgl.methods.Method, "Method()"),
    "methods.PredSim": (lambda: trgl.methods.PredSim(0.5), "PredSim(beta=0.5)"),
    "methods.TRGL": (lambda: trgl.methods.TRGL(tau=0.5), "TRGL(tau=0.5)"),
    "methods.VanGL": (trgl.methods.VanGL, "VanGL()"),
    "recipes.Recipe": (lambda: trgl.recipes.get("trgl/stl10/resnet110/k4"), None),
    "regimes.Buffered": (
        lambda: trgl.regimes.Buffered(capacity=2, order="random"),
        "Buffered(capacity=2, order='random')",
    ),
    "regimes.MultiLap": (
        lambda: trgl.regimes.MultiLap(4, 2, stop=trgl.regimes.StopStage(3)),
        "MultiLap(epochs=4, num_laps=2, stop=StopStage(patience=3))",
    ),
    "regimes.Parallel": (trgl.regimes.Parallel, "Parallel()"),
    "regimes.Regime": (trgl.regimes.Regime, "Regime()"),
    "regimes.Sequential": (
        lambda: trgl.regimes.Sequential(cache="memory"),
        "Sequential(epochs=10, cache='memory')",
    ),
    "regimes.StopStage": (
        lambda: trgl.regimes.StopStage(3, "val_loss"),
        "StopStage(patience=3, monitor='val_loss')",
    ),
    "regularizers.KineticEnergy": (
        lambda: trgl.regularizers.KineticEnergy(0.5, name="energy"),
        "KineticEnergy(tau=0.5, name='energy')",
    ),
    "search.Grouping": (
        lambda: trgl.search.Grouping((1, 2), (0,), 0.25, (), (), ()),
        "Grouping(stage_sizes=(1, 2), choices=(0,), held_out_loss=0.25)",
    ),
    "search.Halving": (lambda: trgl.search.Halving(50), None),
    "search.Relaxed": (lambda: trgl.search.Relaxed(50), None),
    "splitting.Profile": (
        lambda: trgl.splitting.Profile(
            (1 / 3,) * 54, (0.1,) * 54, (8,) * 54, (4,) * 54, lambda start, end: 0
        ),
        "Profile(blocks=54, block_seconds=18.0, head_seconds=5.4, block_bytes=432)",
    ),
}
"""By public name: how an example is made, and its text; `None` for one of its own below."""


def public_classes():
    """Give every class that users see, as they write it."""
    for name, value in vars(trgl).items():
        if isinstance(value, type):
            yield name, value
        if isinstance(value, types.ModuleType) and hasattr(value, "__path__"):
            module = importlib.import_module(value.__name__)
            for inner, entry in vars(module).items():
                if isinstance(entry, type):
                    yield f"{name}.{inner}", entry


def test_every_public_class_has_an_example():
    assert sorted(name for name, _ in public_classes()) == sorted(EXAMPLES)


def assert_readable(text, name):
    assert len(text) <= 300, text
    assert len(text.splitlines()) == 1, text
    assert " at 0x" not in text
    assert name.split(".")[-1] in text


@pytest.mark.parametrize("name", [name for name, (make, _) in EXAMPLES.items() if make])
def test_an_example_is_shown_as_one_would_write_it(name):
    make, wanted = EXAMPLES[name]
    text = repr(make())
    assert_readable(text, name)
    assert wanted in (None, text)


def test_workers_tell_how_many_of_them_live():
    with trgl.distribute.LocalWorkers(1) as workers:
        text = repr(workers)
        assert_readable(text, "LocalWorkers")
        assert text == f"LocalWorkers(count=1, alive=1, addresses=['{workers.addresses[0]}'])"
    assert "alive=0" in repr(workers)


def test_a_model_tells_its_parts_and_how_far_it_is_made():
    regime = trgl.regimes.Sequential(epochs=2, cache="memory")
    made = model(regime=regime, method=trgl.methods.TRGL(0.5))
    text = in_short(made)
    assert_readable(text, "GreedyModel")
    lines = []
    made.summary(print_fn=lines.append)
    numbers = re.search(r"Parameters: ([\d,]+),", lines[0]).group(1)
    assert text == (
        "GreedyModel(stages of [2, 1] blocks, heads [2 × LinearHead], TRGL(tau=0.5), "
        f"Sequential(epochs=2, cache='memory'), built, {numbers} parameters)"
    )
    unbuilt = trgl.GreedyModel([[keras.layers.Dense(4)]] * 16, [keras.layers.Dense(2)] * 16)
    assert_readable(in_short(unbuilt), "GreedyModel")
    assert in_short(unbuilt).endswith("TRGL(tau=1.0), Parallel(), not built)")
    assert in_short(object()) == "object(not made yet)"


LONG = {
    "sixteen exits": lambda: exit_choice(16),
    "many signatures": lambda: trgl.export.ExportReport(
        "a/very/long/path" * 40, 2048, 1e-7, 10**6, 3, tuple(f"exit_{k}" for k in range(40)), 8, 0.5
    ),
    "a block of many layers": lambda: trgl.architectures.resnet(8, (8, 8, 1))[0],
    "epochs of sixteen stages": lambda: trgl.regimes.Sequential(
        [50 + 10 * k for k in range(16)], trgl.FeatureCache("disk", directory="/a" * 200)
    ),
    "taus of sixteen stages": lambda: trgl.methods.TRGL([1 / (k + 3) for k in range(16)]),
    "an array": lambda: keras_class(trgl.methods.LocalMethod)(np.zeros((100, 100))),
    "a function and a partial": lambda: keras_class(trgl.methods.LocalMethod)(
        [unaugmented, functools.partial(unaugmented, 1)]
    ),
    "features of a file": lambda: trgl.datasets.BatchStream(np.zeros((6, 3))).over(
        np.zeros((6, 4), "float16")
    ),
    "two inputs": lambda: trgl.datasets.BatchStream({"a": np.zeros((6, 3)), "b": np.zeros(6, int)}),
}


def keras_class(base):
    class Mine(base):
        def __init__(self, extra):
            self.extra = extra

    return Mine


@pytest.mark.parametrize("row", LONG)
def test_what_is_long_is_cut(row):
    one = LONG[row]()
    assert_readable(repr(one), type(one).__name__)


def test_a_class_that_keeps_its_arguments_shows_them():
    assert repr(keras_class(trgl.methods.TRGL)([1, 2])) == "Mine(extra=[1, 2])"
    assert repr(keras_class(trgl.regimes.Parallel)(object())) == "Mine(extra=object(…))"


def test_an_energy_shows_the_tau_of_now():
    energy = trgl.regularizers.KineticEnergy(0.5, name="energy")
    energy.build()
    energy.tau = 0.25
    assert repr(energy) == "KineticEnergy(tau=0.25, name='energy')"
