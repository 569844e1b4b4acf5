"""The text of `models.config`, by which TensorFlow Serving finds models."""

import re
from pathlib import Path

from keras_trgl.export.options import NAME, ServerFiles
from keras_trgl.export.publish import versions

FILE = "models.config"


def served_name(files: ServerFiles, base: Path) -> str:
    """Give the name by which a server knows the model.

    Raises:
        ValueError: it is the base folder's, which has characters that no model's name may have.
    """
    name = files.model_name or base.name
    if not files.model_config and not files.warmup:
        return name
    if not re.fullmatch(NAME, name, re.ASCII):
        raise ValueError(
            "A model's name must be made of letters, digits, `_`, `-` and `.`. Received: the base "
            f"folder's, {name!r}. Give `ServerFiles(model_name=…)`, or another folder."
        )
    return name


def check_labels(files: ServerFiles, base: Path, version: int) -> None:
    """Raise unless every label points to a version that is there or comes now.

    Raises:
        ValueError: one does not; a server refuses such a label.
    """
    known = {*versions(base), version}
    lost = {label: number for label, number in (files.labels or {}).items() if number not in known}
    if lost:
        raise ValueError(
            f"Labels must point to versions in the base folder: {sorted(known)}. Received: {lost}."
        )


def model_config(files: ServerFiles, name: str) -> str:
    """Give the text of `models.config` for one model.

    Args:
        files: path and labels.
        name: str. The model's name.
    """
    lines = [
        "model_config_list {",
        "  config {",
        f'    name: "{name}"',
        f'    base_path: "{files.base_path or f"/models/{name}"}"',
        '    model_platform: "tensorflow"',
    ]
    if files.labels:
        served = sorted(set(files.labels.values()))
        lines += [
            "    model_version_policy {",
            "      specific {",
            *[f"        versions: {number}" for number in served],
            "      }",
            "    }",
        ]
        for label, number in files.labels.items():
            lines += [
                "    version_labels {",
                f'      key: "{label}"',
                f"      value: {number}",
                "    }",
            ]
    return "\n".join([*lines, "  }", "}", ""])
