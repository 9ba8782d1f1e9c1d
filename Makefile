PYTHON ?= python3
VENV ?= .venv
# A closed network names its own package index here: make serve INDEX=https://mirror/simple
INDEX ?=
CONFIG ?= configs/demo.yaml
RUN = $(VENV)/bin/python -m
# Tests of one process each share the cores; those that start ranks or keep time have them alone.
BESIDE = --numprocesses auto --dist worksteal
INSTALL = $(RUN) pip install --quiet --disable-pip-version-check $(if $(INDEX),--index-url $(INDEX))

.PHONY: serve test test-all check clean

serve: $(VENV)/serve.installed
	@$(RUN) moe_serve.launch --config $(CONFIG)

test: $(VENV)/test.installed
	$(RUN) pytest $(BESIDE) -m "not alone and not slow and not gpu and not npu"
	$(RUN) pytest -m "alone and not slow and not gpu and not npu"

test-all: $(VENV)/test.installed
	$(RUN) pytest $(BESIDE) -m "not alone and not gpu and not npu"
	$(RUN) pytest -m "alone and not gpu and not npu"

check: $(VENV)/test.installed
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	$(MAKE) test

clean:
	rm -rf $(VENV)

$(VENV)/%.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable ".[$*]"
	touch $@
