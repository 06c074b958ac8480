# Everything from a bare clone: each target first makes the virtual environment that it needs.
#
#   PYTHON=python3.12 make test        another interpreter (3.11 or newer) for a new .venv; make clean removes one
#   PYTEST_ARGS='-k plan' make test    options for pytest
#   DEMO_SECONDS=20 make demo          a demo that ends by itself
#   make demo SINKS=s3                 a demo that exports to a local S3 server
#   make bench-against OLD=HEAD~9 JOB=whole BENCH_ARGS='--pairs 15 --events 500000'
#   make proof SINK=s3                 the proof with other destinations: s3, gcs, parquet-hive

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
BROKER := $(BIN)/python -m tests.support.kafka_broker run --

.DEFAULT_GOAL := help
.PHONY: help demo unit test test-more chaos mutants check proof wheel bench bench-against format clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12 chooses the interpreter (3.11 or newer) when .venv is made; once it is there, make clean first."

demo: .venv/.installed $(if $(filter s3,$(SINKS)),.venv/.installed-s3) ## See it work: events in, files out, on an embedded broker
	@$(BIN)/flagstream demo --sink $(or $(SINKS),file)

unit: .venv/.installed-dev ## Run the unit tests: no Kafka, no Java, no Go, less than a minute
	$(BIN)/python -m pytest -q -n 2 --dist worksteal tests/unit $(PYTEST_ARGS)

test: .venv/.installed-dev ## Run every test against a real Kafka, provisioned on the way
	$(BROKER) $(BIN)/python -m pytest -n 2 --dist worksteal tests/chaos tests/kafka tests/contract tests/unit tests/golden $(PYTEST_ARGS)

test-more: .venv/.installed-dev ## Run the heavier tests: they also need Go and promtool
	$(BROKER) $(BIN)/python -m pytest -n 2 --dist worksteal tests/more $(PYTEST_ARGS)

chaos: .venv/.installed-dev ## Search for a sequence of events that breaks a state machine, 2,000 times up to 50 steps each
	HYPOTHESIS_PROFILE=chaos $(BIN)/python -m pytest -q -n 2 -o faulthandler_timeout=0 tests/unit/*/test_*_machine.py $(PYTEST_ARGS)

mutants: .venv/.installed-dev ## Put each deliberate fault into a copy of the code, and see that a test fails
	$(BIN)/python -m tests.mutations.run

check: .venv/.installed-dev ## Check format, lint, types, the direction of imports, and the Avro schemas
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy worker tests bench
	$(BIN)/lint-imports
	$(BIN)/python -m tests.support.schema_history
	$(BIN)/python -m tests.support.structure

proof: .venv/.installed-dev ## Prove exactly-once with a million events and killed workers
	$(BROKER) $(BIN)/python -m tests.chaos.proof --sink $(or $(SINK),file)

wheel: .venv/.installed-dev ## Build the wheel and test it, installed in an environment of its own, outside this checkout
	$(BIN)/python -m tests.support.wheel

bench: .venv/.installed-dev ## Compare the enrich stage with bare confluent-kafka and stock Faust
	$(BROKER) $(BIN)/python -m bench

bench-against: .venv/.installed-dev ## Compare the worker with that of an earlier revision: OLD=REVISION JOB=enrich or whole
	$(BROKER) $(BIN)/python -m bench.against $(or $(OLD),HEAD~1) --job $(or $(JOB),enrich) $(BENCH_ARGS)

format: .venv/.installed-dev ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove what these targets made, the demo's output excepted
	rm -rf .venv .kafka .gcs .old .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist *.egg-info
	find worker tests bench -name __pycache__ -prune -exec rm -rf {} +

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is missing or older than Python 3.11; name another one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.installed: .venv/.python pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

.venv/.installed-dev: .venv/.python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	@touch $@ .venv/.installed

.venv/.installed-s3: .venv/.installed
	$(PIP) --editable '.[demo-s3]'
	@touch $@
