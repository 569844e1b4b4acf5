"""What features tell of labels and of images, by fresh probes: bounds from below."""

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_trgl.checks import check_integer
from keras_trgl.diagnostics.depth_table import DepthTable, column
from keras_trgl.diagnostics.probes import Probe, Probing, apart
from keras_trgl.diagnostics.sampled import held_out as split
from keras_trgl.diagnostics.seen import Seen, see
from keras_trgl.heads.infopro import InfoProHead
from keras_trgl.methods.decoder import WIDTH, Decoder, grids
from keras_trgl.network.live_seeds import build_seeded
from keras_trgl.progress import Progress
from keras_trgl.registration import public
from keras_trgl.scores import class_probabilities, log_loss
from keras_trgl.seeds import HEAD, METHOD_LAYER

HIDDEN = 128

LARGEST = 2**28
"""Bytes of features that are held at a time."""


@public
def information(
    model: Any,
    data: Any,
    cuts: Any = None,
    sample: int = 2000,
    held_out: float = 0.3,
    epochs: int = 60,
    seed: int = 0,
    batch_size: int = 256,
    verbose: Any = 0,
) -> DepthTable:
    """Give bounds from below of what the features of every depth tell of label and image.

    `label` is I(h, y) ≥ H(y) − CE: CE is the cross-entropy, on held-out rows, of a non-linear
    probe that is trained afresh on the frozen features, until its loss on a fifth of the training
    rows rises. Where features are images the probe is InfoPro's `1c2f`, on features as they are;
    else two dense layers, on features averaged over all axes but batch and channels. `input` is
    1 − BCE of InfoPro's decoder, where data and features are images: an affine stand-in for
    I(h, x), as published, of images stretched to [0, 1] by the least and largest number of each
    channel. Compare depths with it, not models. Both say what these probes find, no more.

    Args:
        model: built `GreedyModel`, or a functional `keras.Model` with `cuts`.
        data: tuple `(x, y)` of arrays, `(examples, …)` and class indices or one-hot labels.
        cuts: list of depths 1…K, or of names of layers of a plain model; `None` is every depth.
            Defaults to `None`.
        sample: int ≥ 1. Rows at most. Defaults to `2000`.
        held_out: float in (0, 1). Share of the rows that probes are judged by. Defaults to `0.3`.
        epochs: int ≥ 1. Epochs of a probe at most. Defaults to `60`.
        seed: int ≥ 0. Seed of rows and probes. Defaults to `0`.
        batch_size: int ≥ 1, examples. Defaults to `256`.
        verbose: as in `predict`. Defaults to `0`.

    Returns:
        `DepthTable` with `label`, in nats, `accuracy` of that probe on held-out rows, and
        `input`, NaN where there are no images.

    Raises:
        ValueError: the model is not built, has no such depth, or gives numbers that are not
            finite; labels that do not fit; fewer rows than two of each class.

    Example:
        >>> import keras, numpy as np, keras_trgl as trgl
        >>> model = trgl.GreedyModel.from_blocks(
        ...     [keras.layers.Dense(4)], [1], trgl.heads.LinearHead(2), method="vangl", seed=0)
        >>> model.build((None, 2))
        >>> y = np.arange(120) % 2
        >>> x = np.random.default_rng(0).normal(size=(120, 2)).astype("float32") + 20 * y[:, None]
        >>> found = trgl.diagnostics.information(model, (x, y), epochs=20)["label"]
        >>> bool(found[0] > 0.6)  # of ln 2 = 0.69 nats
        True

    Reference:
        Wang et al., "Revisiting Locally Supervised Learning: an Alternative to End-to-end
        Training" (InfoPro), ICLR 2021, appendix G.
    """
    check_integer("epochs", epochs, 1)
    seen = see(model, data, (), cuts, sample, seed, batch_size, verbose, needs_labels=True)
    return informed(seen, held_out, epochs)


def informed(seen: Seen, fraction: float = 0.3, epochs: int = 60) -> DepthTable:
    """Give `information`'s table.

    Args:
        seen: a sample with labels.
        fraction: float in (0, 1). Share of held-out rows. Defaults to `0.3`.
        epochs: int ≥ 1. Epochs of a probe at most. Defaults to `60`.
    """
    sample = seen.sample
    labels = np.unique(sample.labels, return_inverse=True)[1]
    train, test = split(labels, fraction, sample.seed)
    images = _unit_images(sample.x, seen.view.formats.get(seen.depths[0]))
    probing = Probing(train, test, sample.seed, epochs)
    shares = np.bincount(labels[test]) / len(test)
    entropy = -sum(share * math.log(share) for share in shares if share)
    found: dict[str, dict[int, float]] = {"label": {}, "accuracy": {}, "input": {}}
    done = Progress(len(seen.depths), 1 if seen.verbose else 0, "depth")
    for group in _groups(seen):
        with apart():
            outputs = probing.outputs(_probes(seen, group, labels, images, probing.learn))
        for name, logits in outputs.items():
            kind, _, number = name.partition("_")
            depth = int(number)
            if kind == "input":
                found[kind][depth] = 1.0 - _cross_entropy_of_pixels(logits, images[test])
            else:
                chances = class_probabilities(logits, "logits")
                found[kind][depth] = entropy - log_loss(chances, labels[test])
                found["accuracy"][depth] = (chances.argmax(1) == labels[test]).mean()
        done(len(group))
    about = seen.about(
        entropy=f"H(y) = {entropy:.4f} nats",
        probe=f"at most {epochs} epochs on {len(train)} rows, judged on {len(test)}; images by "
        "1c2f, else two dense layers on features averaged over positions; a bound from below",
    )
    return DepthTable(
        "information in features",
        seen.index,
        {
            name: column(values.get(depth) for depth in seen.depths)
            for name, values in found.items()
        },
        {
            "label": "I(h, y), nats, at least",
            "accuracy": "accuracy of the probe, 0 to 1",
            "input": "1 − BCE of the decoder, nats",
        },
        about,
    )


def _probes(
    seen: Seen, group: dict[int, Any], labels: Any, images: Any, train: Any
) -> dict[str, Probe]:
    """Give the probes of some depths, by name."""
    probes, seed, units = {}, seen.sample.seed, len(np.unique(labels))
    for depth, given in group.items():
        form = seen.view.formats.get(depth)
        features = _standardized(given, form, train)
        probes[f"label_{depth}"] = _label_probe(features, form, labels, units, seed)
        decoder = _image_probe(features, form, images, seed)
        if decoder is not None:
            probes[f"input_{depth}"] = decoder
    return probes


def _groups(seen: Seen) -> Iterator[dict[int, Any]]:
    """Give features by depth, images as they are, for as many depths at a time as memory takes."""
    left, sizes = list(seen.depths), seen.feature_bytes()
    while left:
        group = [left.pop(0)]
        while left and sum(sizes[depth] for depth in [*group, left[0]]) <= LARGEST:
            group.append(left.pop(0))
        yield seen.features(group)


def _label_probe(features: Any, form: str | None, labels: Any, units: int, seed: int) -> Probe:
    if features.ndim == 4:
        layers: list[Any] = [InfoProHead(units, data_format=form)]
    else:
        layers = [keras.layers.Dense(HIDDEN, activation="relu"), keras.layers.Dense(units)]
    net, shape = keras.Sequential(layers, name="label_probe"), (None, *features.shape[1:])
    now = shape
    for place, layer in enumerate(layers):
        build_seeded(layer, now, seed, HEAD, place)
        now = layer.compute_output_shape(now)
    net.build(shape)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return Probe(net, features, labels, loss)


def _image_probe(features: Any, form: str | None, images: Any, seed: int) -> Probe | None:
    first = form == "channels_first"
    if images is None or features.ndim != 4 or grids(images.shape, features.shape, first) is None:
        return None
    decoder = Decoder(images.shape[1:], WIDTH, form, name="image_probe")
    build_seeded(decoder, (None, *features.shape[1:]), seed, METHOD_LAYER, 0)
    return Probe(decoder, features, images, keras.losses.BinaryCrossentropy(from_logits=True))


def _cross_entropy_of_pixels(logits: Any, wanted: Any) -> float:
    """Give the mean binary cross-entropy, in nats, of logits of numbers from 0 to 1."""
    return float((np.logaddexp(0.0, logits) - logits * wanted).mean())


def _standardized(features: Any, form: str | None, train: Any) -> Any:
    axis = 1 if form == "channels_first" and features.ndim == 4 else -1
    axes = tuple(one for one in range(features.ndim) if one != axis % features.ndim)
    center = features[train].mean(axes, keepdims=True)
    spread = features[train].std(axes, keepdims=True)
    return ((features - center) / np.where(spread > 0, spread, 1.0)).astype("float32")


def _unit_images(x: Any, form: str | None) -> Any:
    """Give images stretched to [0, 1] channel by channel, or `None` for other data."""
    if x.ndim != 4 or x.dtype.kind not in "iuf":
        return None
    # Whole numbers of few bits would overflow.
    x = x.astype("float32")
    axes = (0, 2, 3) if form == "channels_first" else (0, 1, 2)
    low, high = (pick(x, axis=axes, keepdims=True) for pick in (np.min, np.max))
    return ((x - low) / np.where(high > low, high - low, 1)).astype("float32")
