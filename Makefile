# make demo   word count of Python's standard library on a cluster of processes of its own
# make test   everything that must pass before a change is shared
# make exact  a million tuples by each grouping, a slow sink for a minute, cuts of 20 seconds: about 20 minutes
# make chaos          every fault there is a test for, also the slow ones, on real processes; some need root
# make soak           a random mix of faults for an hour: MINUTES=60 SEED=1
# make recovery       how long a death is felt: KILLS=30
# make simulate       many seeds of the simulated cluster under faults: SEEDS=5000 FIRST=1; adds a line to seeds.log
# make simulate-speed how many virtual seconds per second, under load
# make simulate-bugs  is each bug that is planted on purpose found by the simulation? Writes planted.log
# Needs Python 3.11 or later. A C compiler makes rainband faster and is not required.

.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := /bin/sh
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
SOURCES := $(shell find rainband -name '*.py' | sort) setup.py setup.cfg pyproject.toml
# A stamp is named after the list of files, so that a removed file also leads to a new install.
INSTALLED := .venv/installed-$(shell echo $(SOURCES) compile=$(RAINBAND_COMPILE) | cksum | cut -d' ' -f1)
JOBS ?= 2

# The unit tests run twice, once on the files here and once on the installed package (-P keeps the
# directory they are started in off the import path); each run asserts which of the two it got.
EXPECT ?= $(if $(filter 0,$(RAINBAND_COMPILE)),built,$(if $(CI)$(shell command -v cc || command -v gcc || command -v clang),compiled,built))
PURE := RAINBAND_EXPECT=pure PYTHONPATH=. $(BIN)/python -m pytest
BUILT := RAINBAND_EXPECT=$(EXPECT) $(BIN)/python -P -m pytest

# The benchmarks of this tree on the installed package: the tree itself must not be found, or it would run uncompiled.
BENCH := mkdir -p .venv/bench && ln -sfn ../../benchmarks .venv/bench/benchmarks && \
	PYTHONPATH=$(CURDIR)/.venv/bench $(BIN)/python -P -m benchmarks

.PHONY: help demo test lint types unit unit-pure unit-built examples integration simulation simulate simulate-speed simulate-bugs faults chaos soak recovery exact bench bench-peers install clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: $(INSTALLED)
	@$(BIN)/rainband demo $(ARGS)

test: lint types unit examples integration simulation faults

install: $(INSTALLED)

lint: .venv/tools
	$(BIN)/ruff check .

types: .venv/tools $(INSTALLED)
	$(BIN)/mypy rainband tests setup.py $(if $(wildcard examples/*.py),examples)

unit: unit-pure unit-built

unit-pure: .venv/tools $(INSTALLED)
	$(PURE) -q -n $(JOBS) tests/unit tests/test_*.py

unit-built: .venv/tools $(INSTALLED)
	$(BUILT) -q -n $(JOBS) tests/unit

# These start processes of their own: one test at a time.
examples integration: .venv/tools $(INSTALLED)
	@if find tests/$@ -name 'test_*.py' 2>/dev/null | grep -q .; then set -x; $(BUILT) -q tests/$@; fi

faults: .venv/tools $(INSTALLED)
	$(BUILT) -q -m 'not slow' tests/faults

chaos: .venv/tools $(INSTALLED)
	$(BUILT) -q -rs tests/faults
	$(MAKE) recovery KILLS=$(or $(KILLS),30)
	$(MAKE) soak MINUTES=$(or $(MINUTES),5)

soak: .venv/tools $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -P -m faults.soak --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED))

recovery: .venv/tools $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -P -m faults.recovery --kills $(or $(KILLS),30) $(if $(SEED),--seed $(SEED))

# The same tests as in `make integration`, at full length; -s shows the figures.
exact: .venv/tools $(INSTALLED)
	RAINBAND_LONG=1 $(BUILT) -q -s -o faulthandler_timeout=1800 $(foreach test,exact backpressure cut,tests/integration/test_$(test).py)

# On the files here: bugs can be planted in uncompiled classes only. Both cores are used by each test.
simulation: .venv/tools $(INSTALLED)
	$(PURE) -q tests/simulation

simulate: .venv/tools $(INSTALLED)
	PYTHONPATH=. $(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),5000) --first $(or $(FIRST),1) --log

simulate-speed: .venv/tools $(INSTALLED)
	PYTHONPATH=. $(BIN)/python -m tests.simulation --speed

simulate-bugs: .venv/tools $(INSTALLED)
	PYTHONPATH=. $(BIN)/python -m tests.simulation --bugs --log

# Storm is built by Maven and runs on Java 17; the other peers come into environments of their own under .bench.
bench-peers: $(INSTALLED)
	$(BENCH) peers --rounds $(or $(ROUNDS),5) $(ARGS)

# ARGS names one benchmark, see `make bench ARGS=--help`; without it all run and docs/benchmarks.md is written.
bench: $(INSTALLED) .venv/numpy
	$(BENCH) $(or $(ARGS),all)

.venv/made:
	@test -n "$(PYTHON)" || { echo 'error: no Python 3.11 or later found; install one, or: make PYTHON=/path/to/python3' >&2; exit 2; }
	@$(PYTHON) -m venv .venv || { echo 'error: $(PYTHON) cannot make a virtual environment; install its venv package' >&2; exit 2; }
	@touch $@

$(INSTALLED): .venv/made $(SOURCES)
	@rm -rf .venv/installed-* build/lib* build/bdist*
	$(BIN)/python -m pip install --quiet .
	@$(BIN)/rainband --version
	@touch $@

# Arrays are what one of the benchmarks sends.
.venv/numpy: $(INSTALLED)
	$(BIN)/python -m pip install --quiet 'rainband[bench]'
	@touch $@

.venv/tools: .venv/made tests/requirements.txt
	$(BIN)/python -m pip install --quiet -r tests/requirements.txt
	@touch $@

clean:
	rm -rf .venv build rainband.egg-info .mypy_cache .pytest_cache .ruff_cache
