PYTHON ?= python3
VENV ?= .venv
# A closed network names its own package index here: make serve INDEX=https://mirror/simple
INDEX ?=
CONFIG ?= configs/demo.yaml
RUN = $(VENV)/bin/python -m
# Tests of one process each share the cores; all others, which start ranks or keep time, have them
# to themselves.
SHARING = tests/kernels tests/placement tests/test_docs.py tests/test_floors.py \
	$(addprefix tests/moe_serve/,accuracy config control edge encoders layers models schedule step \
	weights test_cli.py test_early_checks.py test_planner_install.py test_simulated.py) \
	$(wildcard tests/moe_serve/test_engine_*.py tests/moe_serve/test_check*.py)
SHARE = --numprocesses auto --dist worksteal $(SHARING)
ALONE = tests $(SHARING:%=--ignore=%)
# Of the modules that are installed few are ever imported, and compiled then.
INSTALL = $(RUN) pip install --quiet --no-compile --disable-pip-version-check $(if $(INDEX),--index-url $(INDEX))

.PHONY: serve test test-all check clean

serve: $(VENV)/serve.installed
	@$(RUN) moe_serve.launch --config $(CONFIG)

test: $(VENV)/test.installed
	$(RUN) pytest -m "not slow and not gpu and not npu" $(SHARE)
	$(RUN) pytest -m "not slow and not gpu and not npu" $(ALONE)

test-all: $(VENV)/test.installed
	$(RUN) pytest -m "not gpu and not npu" $(SHARE)
	$(RUN) pytest -m "not gpu and not npu" $(ALONE)

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
