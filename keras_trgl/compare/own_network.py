"""A network of the user's own: a Keras model in a file, with new weights for every training."""

import functools
import hashlib
import pathlib
import zipfile

import keras

from keras_trgl.recording import unknown_class
from keras_trgl.types import Shape

ENDING = ".keras"


def is_own(network: str) -> bool:
    """Tell whether a network is named by its file."""
    return network.endswith(ENDING)


@functools.cache
def mark_of(network: str) -> str:
    """Give what names a network: the file's content too, so that another is another network."""
    if not is_own(network):
        return network
    return f"{network} {hashlib.sha256(pathlib.Path(network).read_bytes()).hexdigest()}"


def check_file(network: str) -> None:
    """Raise unless the file is there, and an archive.

    Raises:
        ValueError: it is not.
    """
    if not pathlib.Path(network).is_file():
        raise ValueError(
            f"`--network` must be a file where it ends in `{ENDING}`. Received: {network}. Save a "
            "model without its classifier: `model.save(path)`."
        )
    if not zipfile.is_zipfile(network):
        raise ValueError(
            f"`--network` must be a model that Keras saved. Received: {network}, which is damaged "
            "or something else. Save it again: `model.save(path)`."
        )


def own_network(network: str, shape: Shape, seed: int) -> keras.Model:
    """Give the model of a file, with weights drawn anew from a seed.

    Args:
        network: str. Path of the file.
        shape: tuple of int, `(height, width, channels)` of the data.
        seed: int ≥ 0.

    Raises:
        ValueError: the model takes other inputs, or has layers that are not known here.
    """
    try:
        saved = keras.saving.load_model(network, compile=False)
    except (TypeError, ValueError) as error:
        name = unknown_class(error)
        if name is None:
            raise
        raise ValueError(
            f"`--network` must be made of layers of Keras or of this package. Received: {network}, "
            f"which needs `{name}`. In a script of your own, that imports it, compare models by "
            "`GreedyModel.from_model(model, cuts, head, method=…)`."
        ) from None
    takes = [tuple(one.shape[1:]) for one in saved.inputs]
    fits = len(takes) == 1 and len(takes[0]) == len(shape)
    if not fits or any(a not in (None, b) for a, b in zip(takes[0], shape, strict=True)):
        raise ValueError(
            f"`--network` must take the images. Received: {network}, which takes "
            f"{', '.join(map(str, takes))}; images are {tuple(shape)}. Give `--image_size`, or "
            "another model."
        )
    keras.utils.set_random_seed(seed)
    # Sides that the model leaves open are those of the data.
    made: keras.Model = keras.models.clone_model(saved, input_tensors=keras.Input(shape))
    return made
