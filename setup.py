"""Packaging of keras_trgl; the settings of tools are in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (ROOT / "keras_trgl" / "version.py").read_text(encoding="utf-8")
).group(1)

EXTRAS = {
    "data": ["tensorflow-datasets"],
    "vision": ["keras-cv==0.9.0", "keras-hub"],
    "plot": ["matplotlib"],
    "analysis": ["scipy", "scikit-learn"],
    "serving": ["tensorflow-serving-api"],
    "litert": ["ai-edge-litert"],
    "onnx": ["tf2onnx", "onnx", "onnxruntime"],
    "openvino": ["openvino", "scipy"],
    "tune": ["keras-tuner"],
    # What builds the site; `make docs` takes the exact set, constraints-docs.txt, without the core.
    "docs": ["latex2mathml", "mkdocs-material", "mkdocstrings[python]", "ruff"],
    # Backbones that `from_model` is tried on; the last three are what importing the first needs.
    "models": ["keras-hub", "regex", "sentencepiece", "tokenizers"],
    # What `benchmarks/frontier` compares with; a build for CPUs will do.
    "rivals": ["torch==2.13.*"],
    # What the examples need beside the core.
    "examples": ["matplotlib", "scikit-learn"],
    "dev": [
        "hypothesis",
        "import-linter",
        "keras-tuner",
        "mlflow-skinny",
        "mypy",
        "pandas",
        "pre-commit",
        "pydot",
        "pytest",
        "pytest-xdist",
        "ruff",
        "tensorboard",
        "uv",
    ],
}

setup(
    name="keras-trgl",
    version=VERSION,
    description=(
        "Train deep Keras networks stage by stage with local losses and a transport regulariser"
    ),
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["keras_trgl", "keras_trgl.*"]),
    package_data={"keras_trgl": ["py.typed"]},
    python_requires=">=3.11",
    install_requires=["absl-py", "keras>=3.15,<4", "numpy", "tensorflow>=2.20"],
    extras_require=EXTRAS,
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        # Those that the suite ran on.
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
