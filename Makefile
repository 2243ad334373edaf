# The words of this project; `make` alone lists them.
PYTHON ?= python3
PY := .venv/bin/python
SEED ?= $(shell date +%s)

.PHONY: help setup up down demo test test-docker soak bench pictures readme lint reset clean

help: ## list these words
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready ## make .venv with Spark, fetch Delta's jars, make the class archive (480 MB, about 2 minutes)
	@$(PY) -m lag_detector.setup

.venv/ready: requirements.txt
	@$(PYTHON) -m lag_detector.java
	@echo "Installing Spark, Delta Lake and the Prometheus client into .venv (450 MB, about a minute) …"
	@$(PYTHON) -m venv .venv
	@.venv/bin/pip install -q --disable-pip-version-check -r requirements.txt
	@$(PY) -m lag_detector.setup >/dev/null
	@touch $@

.venv/dev: requirements-dev.txt .venv/ready
	@echo "Installing what tests and lint need into .venv …"
	@.venv/bin/pip install -q --disable-pip-version-check -r requirements-dev.txt
	@touch $@

up: ## start Prometheus, Pushgateway and Grafana with Docker
	docker compose up -d --wait

down: ## stop them; their data stays until docker compose down -v
	docker compose down

demo: .venv/ready ## tell the whole story here, in under 2.5 minutes (TIMING=real: the tutorial's times, under 7)
	@TIMING=$(TIMING) $(PY) -m demo

test: .venv/dev ## run the steps as a reader does, against a real Pushgateway and Prometheus (about 30 minutes)
	@$(PY) -m pytest

test-docker: .venv/dev ## ask a real Grafana, with Docker (about 10 minutes; not yet run anywhere)
	@$(PY) -m pytest tests/live_grafana.py

soak: .venv/dev ## 200 random histories and 50 scripts ended at any moment (over an hour; SEED=1 repeats a run)
	@$(PY) -m pytest -s -o timeout=7200 --seed $(SEED) --histories 200 --kills 50 tests/test_truth.py tests/test_kills.py

lint: .venv/dev ## check Python, YAML, and the files of Docker, Prometheus and Grafana
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy .
	@.venv/bin/yamllint -s .
	@.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose*.yml
	@.venv/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@for kind in datasources dashboards alerting; do .venv/bin/check-jsonschema \
		--schemafile tests/schemas/$$kind.yml grafana/provisioning/$$kind/*.yml || exit; done
	@.venv/bin/check-jsonschema --schemafile tests/schemas/dashboard.yml grafana/dashboards/*.json
	@promtool="$$($(PY) -m demo.programs promtool)" && \
		"$$promtool" check config prometheus/prometheus.yml && "$$promtool" test rules prometheus/tests/*.yml

bench: .venv/dev ## measure starts, long histories, many consumers; writes benchmarks/results.md (about 55 minutes)
	@$(PY) -m benchmarks

pictures: .venv/dev ## retake the pictures of the README from a real run (about 9 minutes; needs Chromium)
	@$(PY) -m assets.take_pictures

readme: .venv/dev ## run the README's commands and write what they print into it (about 3 minutes)
	@$(PY) -m tests.readme

reset: ## delete the table and the checkpoint in warehouse/
	rm -rf warehouse

clean: reset ## delete everything that is not in git
	rm -rf .venv .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
