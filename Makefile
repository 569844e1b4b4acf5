# A target makes its environment with the locked set first, if it is not there or the lock has changed: .venv for
# tests and benchmarks, .venv-demo for the demo, .venv-docs for the site.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
MODELS_STAMP := $(VENV)/.stamp-models
PACKAGES := -e ".[examples,dev,serving,litert,onnx,openvino]"
DEMO := .venv-demo
DOCS := .venv-docs
# Epochs of `make demo`.
EPOCHS ?= 30
# The build for CPUs is smaller by a third; `make demo TENSORFLOW=tensorflow` takes the one that knows GPUs.
TENSORFLOW ?= $(if $(filter Linux-x86_64,$(shell uname -sm | tr ' ' -)),tensorflow-cpu,tensorflow)
# The extra [models], without what backbones do not need: tokenizers in TensorFlow, downloads.
MODELS := keras-hub regex sentencepiece tokenizers
RECORDING ?= tests/golden/trgl_parallel.npz
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: venv demo docs gallery figures test test-kills test-models test-all lint bench bench-accuracy lock \
	lock-docs test-oldest

venv: $(STAMP)

$(STAMP): constraints.txt setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt setuptools wheel uv
	$(BIN)/uv pip install --python $(BIN)/python --quiet --compile-bytecode --no-build-isolation \
		-c constraints.txt $(PACKAGES) \
		|| $(BIN)/python -m pip install --quiet --no-build-isolation -c constraints.txt $(PACKAGES)
	touch $(STAMP)

$(DEMO)/.stamp: constraints.txt
	@echo "First $(DEMO), an environment of its own: 1.7 GB, of which TensorFlow alone is 1.2 GB."
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install --quiet --no-compile -c constraints.txt \
		$(TENSORFLOW)==$$(sed -n 's/^tensorflow==//p' constraints.txt) \
		absl-py keras numpy matplotlib scikit-learn
	touch $@

# What it needs is installed beside the package's folder, and the package is used from there.
demo:
	@echo "The demo trains one ResNet-26 three ways (TRGL, VanGL, end-to-end) on 1,437 images of digits that come"
	@echo "with scikit-learn, for EPOCHS=$(EPOCHS) each; 30 take about two minutes on two cores. It leaves"
	@echo "a table, a picture, histories and models in runs/quickstart, 11 MB."
	@$(MAKE) --no-print-directory $(DEMO)/.stamp
	PYTHONPATH=. $(DEMO)/bin/python examples/quickstart.py --epochs=$(EPOCHS)

# Strict and without a network: pages are read, no package is imported, no link is fetched.
docs: $(DOCS)/.stamp
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build
	$(DOCS)/bin/python docs/building/check_site.py

$(DOCS)/.stamp: constraints-docs.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --no-deps -r constraints-docs.txt
	touch $@

# The pages of docs/gallery, from examples/gallery: a few minutes.
gallery: $(STAMP)
	$(BIN)/python docs/building/gallery.py

# Tables and the README's picture, from what the benchmarks left.
figures: $(STAMP)
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python benchmarks/picture.py

$(MODELS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt $(MODELS)
	touch $(MODELS_STAMP)

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

# Of the newest that the extra `docs` of setup.py gives.
lock-docs:
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --upgrade latex2mathml mkdocs-material "mkdocstrings[python]" ruff
	{ sed -n '1,2p' constraints-docs.txt; $(DOCS)/bin/python -m pip freeze; } > constraints-docs.new
	mv constraints-docs.new constraints-docs.txt

test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet "setuptools>=68" wheel uv
	.venv-oldest/bin/uv pip install --python .venv-oldest/bin/python --quiet --compile-bytecode --no-build-isolation \
		-c constraints-oldest.txt $(PACKAGES)
	.venv-oldest/bin/python -m pytest -q -n 2 -m "not long and not kills"
