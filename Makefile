# Two commands on a fresh machine with Python >= 3.11 and make (`make docs` builds the site):
#   make search    sets up .venv and searches on the embedded default (digits)
#   make test      sets up .venv and passes the tests
PYTHON ?= python3
VENV ?= .venv
BUDGET ?= 50
BIN := $(VENV)/bin

.PHONY: search test check docs clean

search: $(VENV)/.installed
	$(BIN)/autocompress search --budget $(BUDGET)

# One thread for each process: those of several that share the cores wait for each other. One
# process more than cores, up to 8: many tests wait for processes that they have started.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest --dist worksteal \
		--numprocesses $$($(BIN)/python -c "import os; print(min(8, os.cpu_count() + 1))")

check: $(VENV)/.installed-dev
	PATH="$(abspath $(BIN)):$$PATH" scripts/check

# The site, into site/; nothing is fetched while it is built or read.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# torch first and by its exact version: where a CPU build is offered under that name it is taken,
# and nothing later asks for another.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python >= 3.11 is needed')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
