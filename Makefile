# Every target makes .venv with the locked set first, if it is not there or the lock has changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
MODELS_STAMP := $(VENV)/.stamp-models
PACKAGES := -e ".[examples,dev,serving,litert,onnx,openvino]"
# The extra [models], without what backbones do not need: tokenizers in TensorFlow, downloads.
MODELS := keras-hub regex sentencepiece tokenizers
RECORDING ?= tests/golden/trgl_parallel.npz
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: venv demo test test-kills test-models test-all lint bench bench-accuracy lock test-oldest

venv: $(STAMP)

$(STAMP): constraints.txt setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt setuptools wheel uv
	$(BIN)/uv pip install --python $(BIN)/python --quiet --compile-bytecode --no-build-isolation \
		-c constraints.txt $(PACKAGES) \
		|| $(BIN)/python -m pip install --quiet --no-build-isolation -c constraints.txt $(PACKAGES)
	touch $(STAMP)

$(MODELS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt $(MODELS)
	touch $(MODELS_STAMP)

demo: $(STAMP)
	$(BIN)/python examples/quickstart.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy keras_trgl
	$(BIN)/python -m pytest -q -p no:xdist tests/test_layout.py

test: lint
	$(BIN)/python -m pytest -q -n 2 -m "not long and not kills"

# A few kills per regime; they take turns, as a kill must come in time.
test-kills: $(STAMP)
	$(BIN)/python -m pytest -q -p no:xdist -m kills tests/faults

# Every family of models that `from_model` is tried on, KerasHub's among them.
test-models: $(MODELS_STAMP)
	$(BIN)/python -m pytest -q -p no:xdist -m models tests/network

# What takes minutes too: 20 kills per regime and long runs. By hand, before an issue is done.
test-all: lint
	$(BIN)/python -m pytest -q -n 2 -m "not only_models"

bench: $(STAMP)
	$(BIN)/python benchmarks/parity/run.py $(RECORDING) --json
	$(BIN)/python benchmarks/memory/run.py --json
	$(BIN)/python benchmarks/step_time/run.py --json
	$(BIN)/python benchmarks/regimes/run.py --json

# The accuracy benchmarks take an hour or more.
bench-accuracy: $(STAMP)
	$(BIN)/python benchmarks/early_overfitting/run.py --json
	$(BIN)/python benchmarks/train_size/run.py --json
	$(BIN)/python benchmarks/exits/run.py --json
	$(BIN)/python benchmarks/methods/run.py --json

lock: $(MODELS_STAMP)
	{ sed -n '1,2p' constraints.txt; $(BIN)/uv pip freeze --python $(BIN)/python --exclude-editable \
		| grep -v '^pip=='; } > constraints.new
	mv constraints.new constraints.txt

test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet "setuptools>=68" wheel uv
	.venv-oldest/bin/uv pip install --python .venv-oldest/bin/python --quiet --compile-bytecode --no-build-isolation \
		-c constraints-oldest.txt $(PACKAGES)
	.venv-oldest/bin/python -m pytest -q -n 2 -m "not long and not kills"
