# Each target makes .venv and installs by itself; a second time installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: install quickstart test test-slow check benchmarks docs clean

install: $(VENV)/.installed

quickstart: $(VENV)/.installed
	@if [ -f runs/quickstart/study.yaml ]; \
	then $(BIN)/ganstudy resume runs/quickstart; \
	else $(BIN)/ganstudy run studies/quickstart.yaml; fi

# Sweeps and clusters start processes of their own, and are tested alone; so is what imports
# torch-fidelity, beside which torchmetrics does not import where there is no torchvision.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow" --ignore tests/sweep --ignore tests/cluster --numprocesses 2 --dist loadfile
	PYTHONPATH=$(VENV)/inception $(BIN)/python -m pytest tests/measure/features/test_inception.py
	$(BIN)/python -m pytest -m "not slow" tests/sweep tests/cluster

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow --timeout 1200 -n 2 tests/gan
	$(BIN)/python -m pytest -m slow --timeout 1200 --ignore tests/gan

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.installed
	$(BIN)/ganstudy list --markdown > docs/components.md

benchmarks: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/objectives.py
	$(BIN)/python benchmarks/architectures.py
	$(BIN)/python benchmarks/stabilizers.py
	$(BIN)/python benchmarks/polygons.py
	$(BIN)/python benchmarks/measures.py
	$(BIN)/python benchmarks/polygon_scores.py
	$(BIN)/python benchmarks/sweep_overhead.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/samplers.py --repeats 10

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV): three to four minutes the first time"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV), with what tests need: three to four minutes the first time"
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/inception torch-fidelity
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
