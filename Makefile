# EngramDB's commands. Each makes the environment it needs under .venvs/, and makes it again only
# when pyproject.toml has changed. Nothing is installed outside this directory.

.POSIX:
.SUFFIXES:
.PHONY: help demo test lint checks format bench stress clean environment

# The first of these that is 3.11 or newer and can make environments is taken: make PYTHON=...
PYTHON = python3 python3.13 python3.12 python3.11
ARGS =
MINUTES = 60
OPTIONAL =
CODE = engramdb tools tests benchmarks examples

help: ## show this list
	@echo "EngramDB: make ..."
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{printf "%-9s %s\n", $$1, $$2}'

demo: .venvs/demo/made ## four weeks in the memory of an agent, in your terminal (ARGS=--keep)
	@.venvs/demo/bin/python -m engramdb_tools.demo $(ARGS)

test: .venvs/test/made ## lint, then every test (under 15 minutes on 2 cores)
	@$(MAKE) --no-print-directory checks ENVIRONMENT=.venvs/test
	.venvs/test/bin/python -m pytest -n 2 --dist worksteal -m "not stress" $(ARGS)

lint: .venvs/lint/made ## ruff check, ruff format --check, mypy --strict
	@$(MAKE) --no-print-directory checks ENVIRONMENT=.venvs/lint

checks:
	$(ENVIRONMENT)/bin/python -m ruff check $(CODE)
	$(ENVIRONMENT)/bin/python -m ruff format --check $(CODE)
	$(ENVIRONMENT)/bin/python -m mypy

format: .venvs/lint/made ## let ruff fix and format what it can
	.venvs/lint/bin/python -m ruff check --fix $(CODE)
	.venvs/lint/bin/python -m ruff format $(CODE)

bench: .venvs/bench/made ## side by side with what you would pick instead; prints ratios
	.venvs/bench/bin/python -m benchmarks $(ARGS)

stress: .venvs/test/made ## the long campaigns, with figures at the end (MINUTES=60)
	.venvs/test/bin/python -m tests.stress --minutes $(MINUTES) $(ARGS)

clean: ## remove the environments, the caches and what demos have left
	rm -rf .venvs .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist demo-data
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

.venvs/demo/made: pyproject.toml
	@$(MAKE) --no-print-directory environment DIRECTORY=.venvs/demo EXTRAS=

.venvs/lint/made: pyproject.toml
	@$(MAKE) --no-print-directory environment DIRECTORY=.venvs/lint EXTRAS='[lint]'

.venvs/test/made: pyproject.toml
	@$(MAKE) --no-print-directory environment DIRECTORY=.venvs/test EXTRAS='[lint,test]'

.venvs/bench/made: pyproject.toml benchmarks/requirements.txt
	@$(MAKE) --no-print-directory environment DIRECTORY=.venvs/bench EXTRAS= \
	  OPTIONAL=benchmarks/requirements.txt

# OPTIONAL names a file of requirements of which each may fail: what cannot be installed here is left
# out. The stamp comes last, so an environment that was interrupted halfway is made again.
environment:
	@python=; for candidate in $(PYTHON); do \
	  if $$candidate -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
	      >/dev/null 2>&1; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "EngramDB needs Python 3.11 or newer, with its venv module; tried: $(PYTHON)." >&2; \
	  echo "Install one (Debian, Ubuntu: apt install python3 python3-venv), or name it:" >&2; \
	  echo "  make PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	echo "Making $(DIRECTORY) with $$($$python --version) (once; it takes a moment) ..." >&2; \
	rm -rf $(DIRECTORY) && $$python -m venv $(DIRECTORY) && \
	$(DIRECTORY)/bin/python -m pip install --quiet --disable-pip-version-check -e '.$(EXTRAS)' && \
	for file in $(OPTIONAL); do \
	  sed -e 's/ *#.*//' -e '/^$$/d' $$file | while read -r requirement; do \
	    $(DIRECTORY)/bin/python -m pip install --quiet --disable-pip-version-check \
	      "$$requirement" || echo "Left out, as it cannot be installed: $$requirement" >&2; \
	  done; \
	done && \
	touch $(DIRECTORY)/made
