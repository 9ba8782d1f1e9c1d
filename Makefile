PYTHON ?= python3
VENV ?= .venv
# A closed network names its own package index here: make INDEX=https://mirror/simple serve
INDEX ?=
CONFIG ?= configs/demo.yaml
RANKS ?= 2
PIP_INDEX = $(if $(INDEX),--index-url $(INDEX),)

.PHONY: serve test test-all check install clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check $(PIP_INDEX) "torch>=2.11,<2.14" --editable ".[test]"
	touch $@

serve: install
	@$(VENV)/bin/python -m moe_serve.launch -n $(RANKS) --config $(CONFIG)

test: install
	$(VENV)/bin/python -m pytest -m "not slow and not gpu and not npu"

test-all: install
	$(VENV)/bin/python -m pytest -m "not gpu and not npu"

check: install
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(MAKE) test

clean:
	rm -rf $(VENV)
