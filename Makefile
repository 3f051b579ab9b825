# Everything works from a fresh clone with Python 3.11 or newer and nothing else installed.
# `make up` is the product, `make demo` the whole circle on the built-in scenario, `make test` the tests.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup setup-test setup-ray setup-trackers setup-harness setup-llamacpp setup-clients up demo test test-unit test-all bench lock docs lint format types screenshots clean

BIN := .venv/bin
# Two workers: one waits for the real engine most of the time, the other runs everything else (tests/conftest.py says which runs what).
WORKERS := -n 2 --dist loadscope --no-loadscope-reorder
PYTEST_ARGS ?=

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## the environment in .venv, from the pinned lists; does nothing when it is up to date
	@bash scripts/setup.sh

setup-test: setup ## what the tests need from the system: Chromium, PostgreSQL's programs, Prometheus
	@$(BIN)/python scripts/setup_test.py

setup-ray: setup ## Ray, for runs and searches on a cluster (200 MB)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-compile -r requirements/ray.txt

setup-trackers: setup ## Weights & Biases and MLflow, for training runs that they follow (85 MB)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-compile -r requirements/trackers.txt

setup-harness: setup ## lm-evaluation-harness, for whet eval harness (87 MB)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-compile -r requirements/harness.txt

setup-llamacpp: setup ## llama.cpp, which the slow tests read GGUF files with (102 MB)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-compile -r requirements/llamacpp.txt

setup-clients: setup ## the applications' clients that test-all drives, for Python and Node (800 MB)
	@$(BIN)/python scripts/setup_clients.py

up: setup ## start the product and keep it up until Ctrl-C
	@exec $(BIN)/whet up

demo: setup ## the whole circle on the built-in scenario, with a report at the end
	@exec $(BIN)/whet demo

test: setup setup-test ## all tests that fit into 25 minutes on 2 cores
	$(BIN)/python -m pytest $(WORKERS) -m 'not slow' $(PYTEST_ARGS)

test-unit: setup ## the unit tests alone, in less than a minute
	$(BIN)/python -m pytest $(WORKERS) -m unit $(PYTEST_ARGS)

test-all: setup setup-test setup-ray setup-trackers setup-harness setup-llamacpp setup-clients ## the slow tests too
	$(BIN)/python -m pytest $(WORKERS) $(PYTEST_ARGS)

bench: setup ## the benchmarks that need no GPU
	$(BIN)/python -m benchmarks

lock: setup ## resolve requirements/product.in again into the pinned lists
	$(BIN)/python scripts/lock.py $(if $(UPGRADE),--upgrade)

docs: setup ## write the generated parts of the documentation
	$(BIN)/python scripts/reference.py

lint: setup ## ruff and the architecture's rules
	$(BIN)/ruff check .

format: setup ## let ruff lay out the code
	$(BIN)/ruff format .

types: setup ## the strict type checker
	$(BIN)/mypy whet training serving monitoring feedback

screenshots: setup setup-test ## pictures for the docs, from the running product
	$(BIN)/python scripts/screenshots.py

clean: ## remove the environment and caches; the state folder .whet stays
	rm -rf .venv .venv-clients tests/clients/node_modules build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
