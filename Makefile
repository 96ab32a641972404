# The environment is made once from constraints.txt and made again only when the dependencies change.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint results cluster env clean
help:
	@echo "make demo   train the default experiment in about a minute and say where to look"
	@echo "make test   run all tests"
	@echo "make lint   ruff check and format check"
	@echo "make results [SMALL=1] [ARGS='mnist=FOLDER cifar10=FOLDER only=PART,PART']   repeat the reports, write docs/results.md (SMALL=1: outputs/small/results.md)"
	@echo "make cluster try a sweep on a Ray cluster and in a SLURM queue, both on this machine"
	@echo "make env    only make the environment in $(VENV)"
	@echo "make clean  delete the environment and all runs in outputs"

demo: env
	$(BIN)/python train.py trainer=cpu

test: env
	$(BIN)/python -m pytest -n 2

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Every table and figure of the reports: what is not finished is run, docs/results.md is written. SMALL=1: the bundled digits,
# a few steps of nearly each, into outputs/small.
results: env
	$(BIN)/python sweep.py study=reports $(if $(SMALL),small=true) $(ARGS)

# A sweep through a two-node Ray cluster and through SLURM, both on this machine. SLURM needs root and Debian's slurmctld,
# slurmd, slurm-client and munge.
cluster: env
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,ray,slurm]"
	$(BIN)/python tests/cluster/ray_two_nodes.py
	bash tests/cluster/slurm_one_machine.sh $(abspath $(BIN))/python

env: $(VENV)/.made

# torch first and by the version in constraints.txt; a build of it that is in $(VENV) already (CPU, another CUDA) stays.
$(VENV)/.made: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) outputs/*
