"""Every diagnostic of a model on one page, and as scalars for TensorBoard."""

import math
import pathlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_trgl.checks import made_folder
from keras_trgl.diagnostics.assigned import costs_by_depth
from keras_trgl.diagnostics.calibration import calibrated
from keras_trgl.diagnostics.depth_table import DepthTable
from keras_trgl.diagnostics.failure_prediction import predicted_failures
from keras_trgl.diagnostics.history_by_stage import history_by_stage
from keras_trgl.diagnostics.information import informed
from keras_trgl.diagnostics.monge_gap import gaps
from keras_trgl.diagnostics.page import Section, page
from keras_trgl.diagnostics.seen import Seen, check_heads, see
from keras_trgl.diagnostics.separability import separable
from keras_trgl.diagnostics.similarity import alike
from keras_trgl.diagnostics.transport import moved
from keras_trgl.diagnostics.wasserstein import distances
from keras_trgl.plot.history import history as drawn_history
from keras_trgl.progress import Progress
from keras_trgl.registration import public

PAIRED = 1000
SUFFIX = ".diagnostics"
"""Ending of the file of events."""

DIMENSIONS = 32

WORDS = {
    "calibration": (
        "Accuracy and calibration",
        "What every depth gets right, and how far its confidence is from that.",
        "Accuracy that rises and then falls says that later stages lose what earlier ones had. "
        "ece is the gap between confidence and accuracy: 0 is honest; confidence above accuracy "
        "is over-confidence.",
    ),
    "separability": (
        "Linear separability",
        "Accuracy of a linear classifier, trained afresh on the frozen features of each depth.",
        "Where probe falls with depth, the features themselves got worse; where probe stays and "
        "head falls, the head is to blame, or a training too short for its moving averages. train "
        "far above probe says that there were too few rows for the probe.",
    ),
    "information": (
        "Information",
        "What fresh probes find about the label, in nats, and how well a decoder rebuilds the "
        "image, from the features of each depth.",
        "label can be no more than H(y), below; it is a bound from below, so a low value may be "
        "the probe's fault. A steep fall of input while label stays says that a stage throws away "
        "what it does not need now, which later stages may miss.",
    ),
    "transport": (
        "Transport",
        "How far each stage moves its features, in inference mode.",
        "The transport regulariser weighs the energy. Small numbers: the stage does little. A "
        "stage that moves its features many times their own length is the one to look at. "
        "Displacement is told where a stage keeps the shape.",
    ),
    "monge_gap": (
        "Monge gap",
        "What each stage's moves cost beyond the cheapest way to carry the same points to the "
        "same places.",
        "relative near 1: nearly all of the moving was in vain. Near 0: no other pairing of these "
        "points is cheaper, which says that the stage is an optimal map only where cost is well "
        "above spacing, the way to the nearest other point: shorter moves always look optimal. "
        "Told where a stage keeps the width of averaged features.",
    ),
    "wasserstein": (
        "Distance of features",
        "The Wasserstein distance W2 between the features before and after each stage.",
        "How much the cloud of features changed, whoever went where. Compare stages of one width.",
    ),
    "similarity": (
        "Similarity of depths",
        "Linear CKA between the features of all pairs of depths.",
        "1: alike but for rotation and scale. A bright block of neighbouring depths says that "
        "those stages add little.",
    ),
    "failures": (
        "Prediction of failures",
        "Whether confidence tells right from wrong (right), and which rows a later depth would "
        "mend (mends).",
        "Areas under ROC curves: 0.5 is chance, 1 perfect. Early exit by a threshold works as well "
        "as mends lets it. At the last depth there is nothing later.",
    ),
    "history": (
        "History",
        "What training logged of every stage, epoch by epoch.",
        "A stage whose loss falls while validation's rises is too free: a smaller tau holds it. "
        "Gaps are epochs in which a stage did not train.",
    ),
}
"""Title, what is shown, how to read it."""


@public
def report(
    model: Any,
    data: Any,
    folder: Any,
    history: Any = None,
    dataset: str | None = None,
    predictions: str = "logits",
    sample: int = 2000,
    seed: int = 0,
    batch_size: int = 256,
    verbose: Any = 0,
) -> pathlib.Path:
    """Write every diagnostic of a model as one HTML page, and as scalars for TensorBoard.

    The page, `report.html`, holds its pictures and tables and loads nothing. In `tensorboard/`
    stand the same numbers, `diagnostics/name/column`, with the depth as the step. Give data that
    the model was not trained on; where a choice follows, validation data rather than test data.

    Args:
        model: built `GreedyModel`, a classifier.
        data: tuple `(x, y)` of arrays, `(examples, …)` and class indices or one-hot labels.
        folder: str or path. X
        history: `keras.callbacks.History` of the model's training, or its dict, to be shown too.
            Defaults to `None`.
        dataset: str. Name of the data, for titles. Defaults to `None`.
        predictions: `"logits"` or `"probabilities"`: what the heads give. Defaults to
            `"logits"`.
        sample: int ≥ 1. Rows at most, drawn with the same share of every class; pairings take
            1000 of them. Defaults to `2000`.
        seed: int ≥ 0. Seed of rows and probes. Defaults to `0`.
        batch_size: int ≥ 1, examples. Defaults to `256`.
        verbose: bool or int. Whether a progress bar counts the parts of the report. Defaults to
            `0`.

    Returns:
        `pathlib.Path` of the page.

    Raises:
        ImportError: matplotlib, scipy or scikit-learn is missing: the extras `[plot]` and
            `[analysis]`.
        ValueError: the model is not built, or gives numbers that are not finite, or not those of
            `predictions`; labels that do not fit; fewer rows than two of each class.

    Example:
        >>> import keras, numpy as np, tempfile, keras_trgl as trgl
        >>> blocks = [keras.layers.Dense(2) for _ in range(2)]
        >>> model = trgl.GreedyModel.from_blocks(
        ...     blocks, [1, 1], trgl.heads.LinearHead(2), method="vangl", seed=0)
        >>> x = np.random.default_rng(0).normal(size=(60, 2)).astype("float32")
        >>> model.build(x.shape)
        >>> folder = tempfile.mkdtemp()
        >>> trgl.diagnostics.report(model, (x, (x[:, 0] > 0).astype(int)), folder).name
        'report.html'
    """
    check_heads(model)
    # Before minutes of work.
    stages = None if history is None else history_by_stage(history)
    folder = made_folder("folder", folder)
    reduction = next((s.energy_reduction for s in model.stages if s.energy_reduction), "mean")
    wants = ("vectors", "origin", "prediction", "energy", "displacement")
    seen = see(model, data, wants, None, sample, seed, batch_size, 0, True, reduction)
    subject = f"{dataset}, {model.name}" if dataset else model.name
    tables = _tables(seen, predictions, reduction, stages, verbose)
    sections = [_model_section(model)]
    for name, table in tables.items():
        title, shows, how = WORDS[name]
        is_history = name == "history"
        figure = (
            drawn_history(history, subject=subject) if is_history else table.plot(None, subject)
        )
        sections.append(Section(name, title, shows, how, table, figure, has_table=not is_history))
    lead = (
        f"{model.name}: {model.num_stages} stages, method {model.method!r}, "
        f"regime {model.regime!r}. Looked at on {seen.sample.text}, "
        f"{seen.sample.num_classes} classes{f', of {dataset}' if dataset else ''}."
    )
    target = folder / "report.html"
    target.write_text(page(f"Inside {subject}", lead, sections), encoding="utf-8")
    _write_scalars(folder / "tensorboard", tables)
    return target


def _tables(
    seen: Seen, predictions: str, reduction: str, stages: DepthTable | None, verbose: Any
) -> dict[str, DepthTable]:
    """Give every table, by the name of its section, in the order of the page."""
    few = _first(seen, PAIRED)
    # Two of them speak of the same pairings.
    costs: list[Any] = []

    def paired(make: Callable[..., DepthTable]) -> DepthTable:
        if not costs:
            costs.extend(costs_by_depth(few, DIMENSIONS))
        return make(few, costs, DIMENSIONS)

    makers: dict[str, Callable[[], DepthTable]] = {
        "calibration": lambda: calibrated(seen, predictions),
        "separability": lambda: separable(seen),
        "information": lambda: informed(seen),
        "transport": lambda: moved(seen, reduction),
        "monge_gap": lambda: paired(gaps),
        "wasserstein": lambda: paired(distances),
        "similarity": lambda: alike(seen),
        "failures": lambda: predicted_failures(seen, predictions),
    }
    if stages is not None:
        makers["history"] = lambda: stages
    found = {}
    done = Progress(len(makers), 1 if verbose else 0, "part")
    for name, make in makers.items():
        found[name] = make()
        done()
    return found


def _first(seen: Seen, rows: int) -> Seen:
    """Give what was seen of the first rows, which are as well mixed as all."""
    arrays = {name: values[:rows] for name, values in seen.arrays.items()}
    return Seen(seen.view, seen.sample.first(rows), arrays, seen.batch_size, 0)


def _model_section(model: Any) -> Section:
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    shows = "Stages and heads, their parameters, and what each is trained by."
    return Section("model", "Model", shows, text="\n".join(lines))


def _write_scalars(folder: pathlib.Path, tables: dict[str, DepthTable]) -> None:
    """Write every number for TensorBoard, with its row as the step; a matrix has none."""
    # TensorBoard would show those of an earlier page too.
    for old in folder.glob(f"events.out.tfevents.*{SUFFIX}"):
        old.unlink()
    writer = tf.summary.create_file_writer(str(folder), filename_suffix=SUFFIX)
    with writer.as_default():
        for name, table in tables.items():
            if table.is_matrix:
                continue
            for column, values in table.columns.items():
                for step, value in zip(table.index, values, strict=True):
                    if not math.isnan(value):
                        tf.summary.scalar(f"diagnostics/{name}/{column}", value, step=step)
    writer.close()
