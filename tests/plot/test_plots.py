"""Pictures: titles, units, what is drawn, and what is refused."""

import keras
import numpy as np
import pytest

import keras_trgl as trgl

pytest.importorskip("matplotlib")

plot = trgl.plot
X, Y = np.random.default_rng(0).normal(size=(24, 8, 8, 4)).astype("float32"), np.arange(24) % 3
CURVE = {
    "thresholds": ((0.0,), (0.5,), (1.1,)),
    "accuracy": (0.8, 0.85, 0.9),
    "mean_depth": (1.0, 1.5, 2.0),
    "mean_latency": (0.001, 0.0015, 0.002),
}
CHOICE = trgl.export.ExitChoice(2, (0.5,), (0.8, 0.9), (0.001, 0.002), CURVE)


def a_plan():
    blocks = trgl.architectures.resnet(8, (16, 16, 3))
    return trgl.plan(blocks, 32, 2**24, head=trgl.heads.LinearHead(10), optimizer="sgd")


def title_of(figure):
    return figure.get_suptitle()


def labels_of(axes):
    return axes.get_legend_handles_labels()[1]


def test_accuracy_by_depth_is_that_of_evaluate(tiny_model, tmp_path):
    figure = plot.accuracy_by_depth(tiny_model, (X, Y), "noise, tiny", path=tmp_path / "a.svg")
    logs = tiny_model.evaluate(X, Y, return_dict=True, verbose=0)
    (line,) = figure.axes[0].lines
    wanted = [100 * logs[f"stage_{k}_accuracy"] for k in (1, 2)]
    np.testing.assert_allclose(line.get_ydata(), wanted, rtol=1e-5)
    assert list(line.get_xdata()) == [1, 2]
    assert figure.axes[0].get_ylabel() == "accuracy of depth k, %"
    assert title_of(figure) == "noise, tiny: accuracy by depth"
    assert "<svg" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    own = plot.accuracy_by_depth(tiny_model, (X, np.eye(3)[Y]))
    np.testing.assert_array_equal(own.axes[0].lines[0].get_ydata(), line.get_ydata())
    assert title_of(own) == f"{tiny_model.name}: accuracy by depth"


def test_models_and_numbers_stand_side_by_side_in_the_users_axes(tiny_model):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    figure = plot.accuracy_by_depth(
        {"TRGL": tiny_model, "end-to-end": [0.9]}, (X, Y), "noise", axes=axes
    )
    assert figure is axes.get_figure()
    assert labels_of(axes) == ["TRGL", "end-to-end"]
    assert axes.lines[1].get_linestyle() == "--"
    assert axes.get_title() == "noise: accuracy by depth"


def test_a_history_has_a_panel_per_quantity_and_a_line_per_stage(tiny_model):
    run = tiny_model.fit(X, Y, epochs=2, validation_data=(X, Y), verbose=0)
    figure = plot.history(run)
    units = [one.get_ylabel() for one in figure.axes if one.axison]
    assert {"loss", "accuracy, 0 to 1", "energy E_k, squared feature units"} <= set(units)
    assert title_of(figure) == f"{tiny_model.name}: history by stage"
    loss = plot.history(run.history, ["loss"], "noise").axes[0]
    assert labels_of(loss) == [
        *("stage 1", "stage 2", "stage 1, validation", "stage 2, validation"),
    ]
    np.testing.assert_allclose(loss.lines[1].get_ydata(), run.history["stage_2_loss"])
    assert list(loss.lines[0].get_xdata()) == [1, 2]


def test_what_is_logged_later_stands_at_the_last_epochs():
    logs = {"stage_1_loss": [3.0, 2.0, 1.0], "stage_2_loss": [0.5]}
    lines = plot.history(logs).axes[0].lines
    assert list(lines[1].get_xdata()) == [3]


def test_memory_of_a_model_is_that_of_its_summary(tiny_model):
    figure = plot.memory(tiny_model, batch_size=16)
    stages, standing, peak = tiny_model.count_bytes(16)
    tops = [bar.get_y() + bar.get_height() for bar in figure.axes[0].patches[2:]]
    np.testing.assert_allclose(tops, [(one + standing) / 2**20 for one in stages])
    lines = []
    tiny_model.summary(batch_size=16, print_fn=lines.append)
    assert f"{peak / 2**20:,.1f} MiB at most" in "\n".join(lines)
    assert title_of(figure) == f"{tiny_model.name}: memory by stage, batch size 16"


def test_memory_of_a_plan_shows_every_way_and_the_budget():
    plan = a_plan()
    axes = plot.memory(plan, subject="images, ResNet-8").axes[0]
    assert {"taken", "budget", "all kept"} <= set(labels_of(axes))
    assert sum(len(one.get_offsets()) for one in axes.collections) == len(plan.weighed)
    assert title_of(axes.get_figure()).startswith("images, ResNet-8: ways to train within 16 MiB")
    assert axes.get_ylabel() == "predicted peak, MiB"


def test_memory_that_was_measured_has_a_bar_each():
    axes = plot.memory({"TRGL": 2**21, "end-to-end": 2**22}).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [2.0, 4.0]


def test_exits_are_drawn_over_time_and_depth(tmp_path):
    figure = CHOICE.plot(tmp_path / "exits.png", subject="noise, net")
    time, depth = figure.axes
    assert list(time.lines[0].get_xdata()) == pytest.approx([1.0, 1.5, 2.0])
    assert list(depth.lines[1].get_ydata()) == pytest.approx([80.0, 90.0])
    assert time.get_xlabel() == "mean time of a call, ms"
    assert time.lines[2].get_xdata() == pytest.approx([1.5])
    assert labels_of(time) == ["confident exit", "depth k alone", "chosen"]
    assert title_of(figure) == "noise, net: early exit"
    assert (tmp_path / "exits.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_global_is_set():
    import matplotlib
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    plot.exits(CHOICE)
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


LOGS = {"stage_1_loss": [1.0]}

MISTAKES = {
    "no models": (lambda m: plot.accuracy_by_depth([m]), TypeError, "must be a `GreedyModel`, or"),
    "a model without data": (
        lambda m: plot.accuracy_by_depth(m),
        ValueError,
        "needs `data`, a tuple",
    ),
    "percents": (
        lambda m: plot.accuracy_by_depth({"a": [80.0]}),
        ValueError,
        r"between 0 and 1\. Received: a: \[80.0\]",
    ),
    "axes of something else": (
        lambda m: plot.accuracy_by_depth({"a": [0.8]}, axes="left"),
        TypeError,
        "`axes` must be axes of matplotlib",
    ),
    "no history": (lambda m: plot.history(3), TypeError, "`history` must be what `fit` gave"),
    "no stages in it": (lambda m: plot.history({"loss": [1.0]}), ValueError, "entries `stage_k_…`"),
    "another quantity": (
        lambda m: plot.history(LOGS, ["energy"]),
        ValueError,
        r"among loss\. Received: \['energy'\]",
    ),
    "a quantity alone": (
        lambda m: plot.history(LOGS, "loss"),
        TypeError,
        "`quantities` must be a list",
    ),
    "no batch": (lambda m: plot.memory(m), ValueError, "Received: batch_size=None"),
    "no memory": (lambda m: plot.memory(3), TypeError, "`what` must be a `GreedyModel`, a `Plan`"),
    "no choice": (lambda m: plot.exits(3), TypeError, "`choice` must be an `ExitChoice`"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_the_way_out(mistake, tiny_model):
    call, kind, said = MISTAKES[mistake]
    with pytest.raises(kind, match=said):
        call(tiny_model)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install keras-trgl\[plot\]"):
        plot.exits(CHOICE)


def test_an_unbuilt_model_has_no_bytes():
    head = keras.layers.Dense(3)
    model = trgl.GreedyModel.from_blocks([keras.layers.Dense(4)], [1], head, method="vangl")
    with pytest.raises(ValueError, match="Bytes are told once the model is built"):
        plot.memory(model, batch_size=8)
