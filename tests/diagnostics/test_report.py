"""The report: one page that stands by itself, and the same numbers for TensorBoard."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.util import event_pb2

import keras_trgl as trgl
from keras_trgl import diagnostics

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A model, its report's page, and the data of the report."""
    blocks = [
        trgl.layers.ResidualBlock(
            [keras.layers.Conv2D(3, 3, padding="same"), keras.layers.BatchNormalization()],
            input_shape=(4, 4, 3) if not k else None,
        )
        for k in range(2)
    ]
    model = trgl.GreedyModel.from_blocks(blocks, [1, 1], trgl.heads.LinearHead(3), seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss, metrics=["accuracy"])
    y = np.arange(60) % 3
    x = np.random.default_rng(0).normal(size=(60, 4, 4, 3)).astype("float32")
    x[np.arange(60), :, :, y] += 0.4
    history = model.fit(x, y, epochs=2, verbose=0)
    folder = tmp_path_factory.mktemp("report")
    path = diagnostics.report(model, (x, y), folder, history=history, dataset="<noise> & more")
    return model, path, (x, y)


def test_the_page_stands_by_itself_and_has_every_section(reported):
    model, path, images = reported
    page = path.read_text(encoding="utf-8")
    assert "http" not in page
    assert set(re.findall(r'(?:src|href)="([^"#]{5})', page)) == {"data:"}
    assert "<script" not in page
    assert "<noise>" not in page
    assert f"<title>Inside &lt;noise&gt; &amp; more, {model.name}</title>" in page
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == [
        *("Model", "Accuracy and calibration", "Linear separability", "Information", "Transport"),
        *("Monge gap", "Distance of features", "Similarity of depths", "Prediction of failures"),
        "History",
    ]
    assert page.count("<img") == page.count("alt=") == 9
    assert "all 60 rows" in page
    accuracy = model.evaluate(*images, return_dict=True, verbose=0)["stage_1_accuracy"]
    assert f"<td>{accuracy:.4f}</td>" in page


def test_tensorboard_has_the_same_numbers(reported):
    model, path, images = reported
    found = {}
    for file in (path.parent / "tensorboard").iterdir():
        for record in tf.data.TFRecordDataset(str(file)):
            event = event_pb2.Event.FromString(record.numpy())
            for value in event.summary.value:
                found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    transport = diagnostics.transport(model, images)
    for depth in (1, 2):
        wanted = transport["energy"][depth - 1]
        assert found["diagnostics/transport/energy", depth] == pytest.approx(wanted, rel=1e-5)
    kinds = {tag.split("/")[1] for tag, _ in found}
    assert {"calibration", "separability", "information", "monge_gap", "history"} <= kinds
    assert np.isfinite(list(found.values())).all()
