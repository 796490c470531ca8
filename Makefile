# distlog.  `make up` starts three nodes, `make test` tests everything; nothing has to be set up before either.
# Both need Python 3.11 or newer with pip, and no compiler; everything is installed into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Wheels only, so that no compiler is needed.  pysyncobj is published as source only; it is plain Python.
# (Setuptools warns of every editable installation, and some pips pass it on.)
INSTALL := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check \
    --only-binary :all: --no-binary pysyncobj

# Which nodes `make up` starts.
PROCFILE ?= Procfile

# The counts of the long runs.
SEEDS ?= 500
FIRST_SEED ?= 0
ROUNDS ?= 60
MISSED_MIB ?= 1536
FRAME_SEEDS ?= 200
INPUTS ?= 100000
# History that `make bench` really writes; it is removed again.
BENCH_SIZE ?= 10GiB
TRIALS ?= 50

# All tests at once, the tests of a file in one worker, and the files in the order in which they are collected.  No more workers than real
# processes, of which a test has three and more, leave room for.  What is named runs without any: it starts sooner, and a debugger works.
# (By file: pytest-xdist 3.8 takes no notice of the mark xdist_group with pytest 9.2.)
WORKERS_MAX ?= 4
IN_WORKERS := --numprocesses logical --maxprocesses $(WORKERS_MAX) --dist loadfile --no-loadscope-reorder

export PATH := $(CURDIR)/$(BIN):$(PATH)
# What a node says appears at once, also through honcho's pipes.
export PYTHONUNBUFFERED := 1
# What is compiled is kept, whatever the environment says: the tests start hundreds of processes, each for a third less of its time.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help up up-serf up-tls n1 n2 n3 n1-tls n2-tls n3-tls test check fix metrics proto chart simulate torture fuzz small-disk crash-matrix bench bench-failover clean

help:
	@sed -n 's/^\([a-z0-9 -]*\):.*## /\1: /p' $(MAKEFILE_LIST)

up: $(VENV)/installed ## start the three nodes of the Procfile on loopback; Ctrl-C stops them
	@exec honcho -f $(PROCFILE) start

up-serf: ## the same with nodes that find each other by Serf, which must be installed
	@exec $(MAKE) --no-print-directory up PROCFILE=deploy/Procfile.serf

up-tls: $(VENV)/installed data/pki/ca.pem ## the same with certificates, made in data/pki: everything encrypted, both ends known
	@exec honcho start -f deploy/Procfile.tls

data/pki/ca.pem: | $(VENV)/installed
	@distlog certs data/pki

n1 n2 n3: $(VENV)/installed ## start one node of the Procfile again
	@exec honcho -f $(PROCFILE) start $@

n1-tls n2-tls n3-tls: $(VENV)/installed data/pki/ca.pem
	@exec honcho start -f deploy/Procfile.tls $(@:-tls=)

test: $(VENV)/installed-dev ## run all tests, in a process for each core; some in one process: TESTS=tests/storage
	@exec python -m pytest $(or $(TESTS),$(IN_WORKERS))

check: $(VENV)/installed-dev ## lint, types, and whether the generated code is up to date; writes nothing
	ruff check
	ruff format --check
	mypy
	python proto/generate.py --check

fix: $(VENV)/installed-dev ## format, and repair what the linter can
	ruff check --fix
	ruff format

metrics: $(VENV)/installed-dev ## write docs/metrics.md from the table of metrics
	@exec python -m tests.monitoring.document

proto: $(VENV)/installed-dev ## generate the code of distlog/api from proto/
	python proto/generate.py

chart: $(VENV)/installed-dev ## render the Helm chart for its tests; needs Helm 3
	@exec python -m tests.deploy.charts

simulate: $(VENV)/installed-dev ## many simulated schedules: SEEDS=500 FIRST_SEED=0, one: SEED=17, without a rule: ABLATE=all
	@exec python -m tests.simulation.campaign --seeds $(SEEDS) --first-seed $(FIRST_SEED) \
	    $(if $(SEED),--seed $(SEED)) $(if $(ABLATE),--ablate $(ABLATE))

fuzz: $(VENV)/installed-dev ## INPUTS=100000 at each parser, mutated frames at running nodes: FRAME_SEEDS=200, of 500 frames each
	python -m pytest tests/fuzz/parsers -s --inputs $(INPUTS) --first-seed $(FIRST_SEED) --timeout 0
	python -m pytest tests/fuzz --ignore tests/fuzz/parsers --seeds $(FRAME_SEEDS) --first-seed $(FIRST_SEED) --timeout 0

torture: $(VENV)/installed-dev ## kill -9 real processes for many rounds, and fall far behind: ROUNDS=60 MISSED_MIB=1536
	python -m pytest tests/processes --rounds $(ROUNDS) --missed-mib $(MISSED_MIB) --timeout 0

small-disk: $(VENV)/installed-dev ## a node with a small disk falls MISSED_MIB=1536 behind; needs root, and as much memory twice
	python -m pytest tests/processes/test_catch_up.py -k no_space --missed-mib $(MISSED_MIB) --timeout 0

crash-matrix: $(VENV)/installed-dev ## the crash matrix in full: every damage at every byte and every disk operation
	python -m pytest tests/storage/crash tests/storage/test_log_model.py tests/consensus/crash tests/consensus/test_journal_crash.py \
	    --full-matrix --timeout 0

bench: $(VENV)/installed-dev ## measure what docs/performance.md reports, and write its table; BENCH=--full for 10 GiB
	python -m benchmarks.cluster_bench --write $(BENCH)
	python -m benchmarks.where_time_goes --write
	python -m benchmarks.produce_latency
	python -m benchmarks.raft_round
	python -m benchmarks.verify
	python -m benchmarks.authorization
	python -m benchmarks.tracing
	python -m benchmarks.scrape
	python -m benchmarks.storage --size $(BENCH_SIZE)

bench-failover: $(VENV)/installed-dev ## kill -9 of the leader, TRIALS=50 times: how long until the next write
	python -m benchmarks.failover --trials $(TRIALS)

clean: ## remove what these targets made, the data of the three nodes included
	rm -rf $(VENV) build dist *.egg-info data .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Where the system's Python has no ensurepip (Debian without python3-venv), its pip installs another into the environment.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "there is no python3 here: install Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("distlog needs Python 3.11 or newer: make PYTHON=python3.x")'
	@echo "creating $(VENV)"
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(VENV); else \
	    $(PYTHON) -m venv --without-pip $(VENV) && \
	    $(PYTHON) -m pip --python $@ install --quiet --only-binary :all: pip; fi

$(VENV)/installed: pyproject.toml | $(BIN)/python
	@echo "installing distlog into $(VENV)"
	@$(INSTALL) --editable '.[up]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	@echo "installing distlog and what its tests need into $(VENV)"
	@$(INSTALL) --editable '.[dev]'
	@touch $(VENV)/installed $@
