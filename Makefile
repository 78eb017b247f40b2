# Everything a newcomer runs. Bare `make` prints this list.
PYTHON ?= python3
# Which scan the demo segments, in which domain, and where its results go.
SCAN ?=
DOMAIN ?= sim-t1w-3t
OUT ?= out
# Where the study's label maps are, how large it is, and where its report goes.
LABELMAPS ?=
PRESET ?= cpu
REPORT ?= table2
# What travels to a GPU beside the project: a folder of unlabelled scans, a manifest.
REAL ?=
CASES ?=
PYTHON_VERSION ?= 3.12
# The package index that torch's build comes from; empty: pip's own choice.
TORCH_INDEX ?=
PORT ?= 8000

# Compiled once and kept: otherwise each process of a service would compile torch anew.
export PYTHONDONTWRITEBYTECODE :=

BIN := .venv/bin
ROOMS := app bench cli experiments migrations models normbank pipeline simulate tests training worker
PIP := $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint up bench experiment-table2 gpu-pack gpu-smoke

help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.installed ## make .venv with everything the others need

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("normbank needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	@echo "setting up .venv (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	@$(PIP) -e '.[cpu,embedded,demo,dev]'
	@touch $@

demo: setup ## segment a real scan, teach the service a new scanner, prove the old ones kept (SCAN=, DOMAIN=, OUT=)
	@$(BIN)/normbank demo $(if $(SCAN),--scan '$(SCAN)') --domain '$(DOMAIN)' --out '$(OUT)'

test: setup ## all tests, two files at once: services that start are waited for
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: setup ## style, types, the direction of imports, words that were given up, Dockerfile and compose file
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@! grep -rnwF -f docs/retired-words --include=*.py $(ROOMS)
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

bench: setup ## what a domain costs, here and in the registry, the network against other libraries, one JSON line each (10 minutes)
	@$(PIP) -e '.[bench]'
	@$(BIN)/python bench/forward.py
	@$(BIN)/python bench/cpu_peers.py
	@$(BIN)/python bench/processes.py
	@$(BIN)/python bench/registry.py
	@$(BIN)/python bench/start.py

experiment-table2: setup ## the paper's table 2 on simulated scanners (LABELMAPS=, PRESET=smoke|cpu|full, REPORT=)
	@$(BIN)/normbank experiment table2 --preset '$(PRESET)' --out '$(REPORT)' $(if $(LABELMAPS),--labelmaps '$(LABELMAPS)')

gpu-pack: setup ## build/gpu-pack: all that a bare machine with a GPU needs (LABELMAPS=, REAL=, CASES= a manifest, PYTHON_VERSION=)
	@$(BIN)/python -m bench.gpu.pack --python '$(PYTHON_VERSION)' $(if $(LABELMAPS),--labelmaps '$(LABELMAPS)') $(if $(REAL),--real '$(REAL)') $(if $(CASES),--cases '$(CASES)')

gpu-smoke: setup ## rehearse a run on a GPU: tiny, on the CPU, from a pack of its own (4 minutes)
	@$(BIN)/python -m bench.gpu.smoke $(if $(LABELMAPS),--labelmaps '$(LABELMAPS)')

up: setup ## the service on this machine, until Ctrl-C (PORT=)
	@exec $(BIN)/normbank up --port $(PORT)
