# Two commands matter: `make serve` and `make test`. Each sets up all it needs in .venv.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
# cpu or gpu: exactly one faiss.
DEVICE ?= cpu
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: serve test bench bench-review bench-screening seed-vectors experiments image image-lint chart audit format clean help

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

serve: $(VENV)/serve.stamp  ## set up and start the gateway (UPSTREAM=https://host/v1, HOST, PORT)
	@$(if $(UPSTREAM),ANTIPROMPT_UPSTREAM__BASE_URL='$(UPSTREAM)') $(if $(HOST),ANTIPROMPT_HOST='$(HOST)') \
	 $(if $(PORT),ANTIPROMPT_PORT='$(PORT)') exec $(BIN)/antiprompt serve

test: $(VENV)/test.stamp  ## set up and run every check and every test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	tests/browser.sh
	tests/prometheus.sh
	tests/proxy.sh
	$(BIN)/python -m pytest

bench: $(VENV)/test.stamp  ## measure the gateway beside its upstream (ARGS="--peer litellm")
	$(BIN)/python -m tests.benchmarks $(ARGS)
	$(BIN)/python -m tests.benchmarks.review_pages

bench-review: $(VENV)/test.stamp  ## measure the dashboard alone, with 100,000 flags waiting and 200 more a second
	$(BIN)/python -m tests.benchmarks.review_pages $(ARGS)

bench-screening: $(VENV)/test.stamp  ## measure encoder and search alone (ARGS="--device cuda")
	$(BIN)/python -m tests.benchmarks.screening $(ARGS)

seed-vectors: $(VENV)/serve.stamp  ## encode the seed anew after it or the shipped adapter changed (minutes)
	$(BIN)/python -m antiprompt_bank.seeding

experiments: $(VENV)/serve.stamp  ## repeat the experiments of gateway/alignment/RESULTS.md (minutes on two cores)
	$(BIN)/python -m gateway.alignment.experiments --to gateway/alignment/results $(ARGS)

image:  ## build an image and try it out, without an engine too (TARGET=worker, gpu; default cpu)
	docker/image.sh $(or $(TARGET),cpu)

image-lint: $(VENV)/test.stamp  ## check the Dockerfile and the compose file
	tests/proxy.sh
	$(BIN)/python -m pytest tests/docker

chart: $(VENV)/test.stamp  ## make the table of the chart's values, render the chart in many ways and check all of it
	$(BIN)/python helm/table.py
	$(BIN)/python -m pytest tests/helm

audit: $(VENV)/test.stamp  ## list what is installed, ask what is known against it, look for secrets in the repository
	tests/audit.sh $(BIN)/python

format: $(VENV)/test.stamp  ## format the code and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and what the tools left
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch exports the encoder once; serving runs without it.
$(VENV)/serve.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Setting up $(VENV) (a few minutes the first time) ..."
	$(INSTALL) --editable '.[$(DEVICE),train]'
	@touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Setting up $(VENV) for tests (a few minutes the first time) ..."
	$(INSTALL) --editable '.[$(DEVICE),train,test,dev]'
	@touch $@ $(VENV)/serve.stamp
