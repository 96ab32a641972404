# The environment is made once from constraints.txt and made again only when the dependencies change.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint env clean
help:
	@echo "make demo   train the default experiment in about a minute and say where to look"
	@echo "make test   run all tests"
	@echo "make lint   ruff check and format check"
	@echo "make env    only make the environment in $(VENV)"

demo: env
	$(BIN)/python train.py trainer=cpu

test: env
	$(BIN)/python -m pytest -n 2

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

env: $(VENV)/.made

# torch first and by its exact version: an open range would fetch gigabytes of CUDA packages on a machine without a GPU.
$(VENV)/.made: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) outputs/*
