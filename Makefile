# Two commands do everything on a bare machine with Python 3.11+ and make: `make demo` and `make test`.
# A GPU build of torch comes by itself where pip finds one; for a CPU-only build set PIP_EXTRA_INDEX_URL first (README).
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
EXTRAS ?= dev,dask,pdf

.DEFAULT_GOAL := help
.PHONY: help install demo test check soak bench serve docs clean

help:            ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /	/' | expand -t 12

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

install: $(VENV)/.installed  ## make .venv with everything in it

demo: install    ## run studies/demo.yaml and say where the report is
	$(BIN)/robust run studies/demo.yaml

test: install    ## all tests that this machine's data allow
	$(BIN)/python -m pytest -n auto --dist loadfile

check: install   ## the one gate for style: lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: install    ## long proofs: many kills, many fuzzed inputs
	$(BIN)/python -m pytest -m soak --timeout 7200

# beside the official AutoAttack, which is no package: make bench OFFICIAL=<checkout of github.com/fra31/auto-attack>
BENCHMARKS ?= $(filter-out benchmarks/autoattack_%.py,$(wildcard benchmarks/*.py))

bench: install   ## timed comparisons, printed as ratios; hours in all
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	failed=; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script || failed="$$failed $$script"; done; \
	test -z "$$failed" || { echo "failed:$$failed"; exit 1; }
	$(if $(OFFICIAL),$(BIN)/python benchmarks/autoattack_mnist.py --official $(OFFICIAL))

serve: install   ## Prefect and MLflow on loopback
	$(BIN)/robust serve

docs: install    ## the documentation, with the catalogue of all methods, in site/
	$(BIN)/python docs/results_table.py
	$(BIN)/mkdocs build --strict

clean:           ## forget the environment and everything that runs made
	rm -rf $(VENV) .robust build site *.egg-info
