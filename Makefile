# Every target sets up what it needs by itself; a second run starts at once.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.stamp

.PHONY: setup
setup: $(STAMP)

$(STAMP): pyproject.toml requirements/dev.txt ops/bootstrap.py
	$(PYTHON) ops/bootstrap.py
