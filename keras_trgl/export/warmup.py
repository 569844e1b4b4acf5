"""Requests that TensorFlow Serving replays when it loads a version, so that none comes first.

A request that fails makes the whole version fail to load, so all are replayed before publication.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_trgl.checks import needed

FILE = "assets.extra/tf_serving_warmup_requests"


def check_can_write(batch_sizes: Sequence[int]) -> None:
    """Raise if requests are wanted and the extra `[serving]` is not there.

    Raises:
        ImportError: it is missing.
    """
    if batch_sizes:
        needed("tensorflow_serving.apis.prediction_log_pb2", "serving", "A warm-up file")


def write_requests(
    folder: Path, samples: dict[str, dict[str, Any]], batch_sizes: Sequence[int], model_name: str
) -> int:
    """Write requests for every signature at every batch size.

    Args:
        folder: path of the SavedModel.
        samples: by signature, its inputs by name: arrays, rows first.
        batch_sizes: sequence of int.
        model_name: str. As the server knows the model.

    Returns:
        int. Requests written.
    """
    logs = needed("tensorflow_serving.apis.prediction_log_pb2", "serving", "A warm-up file")
    path = folder / FILE
    path.parent.mkdir()
    count = 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, arrays in samples.items():
            for size in batch_sizes:
                log = logs.PredictionLog()
                request = log.predict_log.request
                request.model_spec.name = model_name
                request.model_spec.signature_name = name
                for key, array in arrays.items():
                    rows = np.resize(array, (size, *array.shape[1:]))
                    request.inputs[key].CopyFrom(tf.make_tensor_proto(rows))
                writer.write(log.SerializeToString())
                count += 1
    return count


def replay_requests(folder: Path, loaded: Any) -> int:
    """Send every request of the file to a loaded model, and give their number.

    Raises:
        tf.errors.OpError: a request fails.
    """
    logs = needed("tensorflow_serving.apis.prediction_log_pb2", "serving", "A warm-up file")
    count = 0
    for record in tf.data.TFRecordDataset(str(folder / FILE)).as_numpy_iterator():
        request = logs.PredictionLog.FromString(record).predict_log.request
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        loaded.signatures[request.model_spec.signature_name](**inputs)
        count += 1
    return count
