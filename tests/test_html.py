"""What notebooks show of results: a table of right cells, escaped, that needs nothing else."""

import html
import re

import keras
import pytest

import keras_trgl as trgl
from keras_trgl.diagnostics import DepthTable
from keras_trgl.export import ExitChoice
from keras_trgl.search.plan import Plan, Weighed

Dense = keras.layers.Dense
CURVE = {
    "thresholds": ((1.1,), (0.5,)),
    **{"accuracy": (0.9, 0.8), "risk": (0.0, 0.1)},
    **{"mean_depth": (2.0, 1.0), "mean_latency": (0.002, 0.001)},
}


def model(built=True, method="vangl"):
    stages = [[Dense(4, name="<i>"), Dense(5)], [Dense(3)]]
    heads = [trgl.heads.LinearHead(2) for _ in stages]
    made = trgl.GreedyModel(stages, heads, method, seed=0, name="<b>net")
    if built:
        made.build((None, 6))
    return made


def plan():
    ways = [Weighed((2, 1), True, 4, 3 * 2**19, 0.25), Weighed((3,), False, 1, 2**20, 0.5)]
    return Plan((3,), False, 1, 2**20, 8, 2**20, tuple(ways), print)


def cut():
    network = keras.Sequential([keras.Input((3,)), Dense(4, name="a>"), Dense(2, name="z")])
    return trgl.GreedyModel.from_model(network, 2, trgl.heads.LinearHead(2), method="vangl")


SHOWN = {
    "a model": (
        model,
        'Model "<b>net": 2 stages, VanGL()',
        ["stage", "layer", "blocks", "parameters", "output", "head", "parameters", "output"],
        [
            ["1", "stage_1", "2", "53", "(None, 5)", "LinearHead", "12", "(None, 2)"],
            ["2", "stage_2", "1", "18", "(None, 3)", "LinearHead", "8", "(None, 2)"],
        ],
        "Parameters: 91, of them trained: 91.",
    ),
    "stages without heads": (
        lambda: model(method="ddg"),
        "DDG()",
        None,
        [
            ["1", "stage_1", "2", "53", "(None, 5)", "none", "", ""],
            ["2", "stage_2", "1", "18", "(None, 3)", "LinearHead", "8", "(None, 2)"],
        ],
        "Parameters: 79",
    ),
    "a model that is not built": (
        lambda: model(built=False),
        "2 stages, VanGL()",
        None,
        [
            ["1", "stage_1", "2", "not built", "", "LinearHead", "not built", ""],
            ["2", "stage_2", "1", "not built", "", "LinearHead", "not built", ""],
        ],
        "Not built",
    ),
    "a plan": (
        plan,
        "Plan(stage_sizes=(3,), remat=False",
        ["stages", "parts", "remat", "MiB", "work", "fits"],
        [["2", "4", "True", "1.5", "1.25", "no"], ["1", "1", "False", "1.0", "1.50", "yes"]],
        "The first that fits",
    ),
    "an exit": (
        lambda: ExitChoice(2, (0.5,), (0.8, 0.9), (0.001, 0.002), CURVE, (1.5, 1.25)),
        "Depth 2 of 2",
        ["depth", "accuracy", "ms a call", "leaves at", "temperature"],
        [["1", "0.8", "1", "0.5", "1.5"], ["2", "0.9", "2", "always", "1.25"]],
        "Early exit at (0.5,): accuracy 0.8",
    ),
    "a diagnosis": (
        lambda: DepthTable("<Accuracy>", (1, 2), {"probe": (0.5, 0.75)}, {}, {"model": "a<b"}),
        "<Accuracy>",
        ["depth", "probe"],
        [["1", "0.5000"], ["2", "0.7500"]],
        "model: a<b",
    ),
    "cuts": (
        lambda: cut().cut_table(),
        "Cuts",
        ["depth", "first", "last", "crosses", "residuals", "parameters", "bytes"],
        [
            ["1", "a>", "a>", "a> (4,) float32", "0", "16", "16"],
            ["2", "z", "z", "z (2,) float32", "0", "10", "8"],
        ],
        "",
    ),
    "a search": (
        lambda: trgl.search.Grouping((1, 2), (0,), 0.25, (), (), ()),
        "Grouping(stage_sizes=(1, 2)",
        ["stage", "blocks", "head"],
        [["1", "1", "0"], ["2", "2", "the last"]],
        "",
    ),
}
"""By what is shown: how it is made, title, header or `None`, rows, and notes below."""


def cells(text):
    rows = re.findall(r"<tr>(.*?)</tr>", text)
    return [[html.unescape(one) for one in re.findall(r"<t[hd].*?>(.*?)</t", r)] for r in rows]


@pytest.mark.parametrize("row", SHOWN)
def test_a_notebook_shows_a_table(row):
    make, title, header, rows, notes = SHOWN[row]
    text = make()._repr_html_()
    found = cells(text)
    assert header is None or found[0] == header
    assert found[1:] == rows
    above, below = text.split("<table>")[0], text.split("</table>")[1]
    assert title in html.unescape(above)
    assert notes in html.unescape(below)
    tags = set(re.findall(r"<(\w+)", text))
    assert tags <= {"div", "p", "b", "br", "table", "thead", "tbody", "tr", "th", "td"}
    assert set(re.findall(r"<[^>]*?(\w+)=", text)) <= {"scope"}


def test_markup_in_a_name_is_shown_as_text():
    text = model()._repr_html_()
    assert "&lt;b&gt;net" in text
    assert "<b>net" not in text


def test_a_model_that_is_not_made_yet_has_no_table():
    assert trgl.GreedyModel._repr_html_(trgl.GreedyModel.__new__(trgl.GreedyModel)) is None
