# Every target sets up what it needs by itself; a second run starts at once.
PYTHON ?= python3
ARGS ?=
SEEDS ?= 200
BIN := .venv/bin
STAMP := .venv/.stamp
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-python-downloads --generate-hashes \
	--no-emit-index-url --no-header --no-annotate

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format simulate chaos image wheels lock hooks

help: ## list the targets
	@sed -n 's/^\([a-z%-]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: $(STAMP) ## virtual environment, Python packages, Kafka, Java
$(STAMP): pyproject.toml requirements/dev.txt ops/bootstrap.py ops/broker/resources/jars.txt
	@$(PYTHON) ops/bootstrap.py

demo: $(STAMP) ## a real recommender trains online, two regions serve it: make demo ARGS='--headless --seconds 60'
	@$(BIN)/ekko demo $(ARGS)

test: lint ## all checks and tests but chaos, image and measurements
	$(BIN)/pytest -n 3 --dist loadfile $(ARGS)

lint: $(STAMP) ## style, types, directions of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMP) ## let ruff lay out and mend what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

simulate: $(STAMP) ## seeded faults in virtual time: make simulate SEEDS=1000
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

chaos: $(STAMP) ## long kill runs on a real broker
	$(BIN)/pytest -m chaos --timeout 1800 $(ARGS)

image: $(STAMP) ## the Dockerfile's steps in order in an empty folder (fetches some 300 MB)
	$(BIN)/pytest -m image $(ARGS)

bench-%: $(STAMP) ## a measurement of tests/bench: make bench-publisher ARGS='--seconds 5'
	$(BIN)/python -m tests.bench.$* $(ARGS)

wheels: $(STAMP) ## does every requirement have a wheel on every documented platform?
	$(BIN)/python ops/wheels.py

lock: $(STAMP) ## resolve the requirements anew
	$(LOCK) pyproject.toml -o requirements/runtime.txt
	$(LOCK) pyproject.toml --extra monitor -c requirements/runtime.txt -o requirements/monitor.txt
	$(LOCK) pyproject.toml --extra dev -c requirements/monitor.txt -o requirements/dev.txt
	$(LOCK) --group build -c requirements/dev.txt -o requirements/build.txt

hooks: $(STAMP) ## run the checks before every commit
	$(BIN)/pre-commit install
