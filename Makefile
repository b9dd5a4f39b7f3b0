# What people run. Each target says what it does: `make help`.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
RUN := $(VENV)/bin/python
WORK ?= runs
SOURCE ?= synthetic
LAYOUT ?= auto
PART ?= all

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show what there is to run
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: demo
demo: $(VENV)/.with-torch ## Faces in, a trained and scored model out; SOURCE=DIR LAYOUT=csv for your own
	$(RUN) -m pipelines.demo --source "$(SOURCE)" --layout "$(LAYOUT)" --work "$(WORK)"

.PHONY: test
test: $(VENV)/.with-dev ## Run all tests but the long ones of `make nightly`
	$(RUN) -m pytest -n 2 --dist loadfile -m "not nightly" $(ARGS)

.PHONY: test-nightly
test-nightly: $(VENV)/.with-dev ## Run the long tests: kills, outages, servers, whole pipelines
	$(RUN) -m pytest -m nightly $(ARGS)

.PHONY: test-faults
test-faults: $(VENV)/.with-audit ## Kill, starve, cut off and feed rubbish to every step: the long mode, up to 40 minutes
	$(RUN) tests/faults/long_mode.py $(ARGS)

.PHONY: audit
audit: $(VENV)/.with-audit ## Look for known faults in our code (bandit) and in what it depends on (pip-audit)
	$(RUN) -m bandit -q -r src components pipelines --severity-level high
	$(RUN) -m pip_audit -r constraints.txt --no-deps --disable-pip --progress-spinner off

.PHONY: sbom
sbom: $(VENV)/.with-audit ## Write dist/sbom-<image>.json (CycloneDX): what each kind of image holds
	$(RUN) docker/sbom.py dist

.PHONY: bench
bench: $(VENV)/.with-dev ## Measure speed beside what one would run instead, and print the table; ARGS=--quick
	$(RUN) -m benchmarks $(ARGS)

.PHONY: bench-guard
bench-guard: $(VENV)/.with-dev ## Check in about a minute that training and loading are not much slower than they were
	$(RUN) -m benchmarks.guard

.PHONY: lint
lint: $(VENV)/.with-dev ## Check style, types and the direction of imports
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

.PHONY: format
format: $(VENV)/.with-dev ## Mend style where it can be mended
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

.PHONY: compile
compile: $(VENV)/.with-torch ## Write dist/<pipeline>.yaml for the KFP UI
	$(RUN) -m pipelines.compile

.PHONY: golden
golden: $(VENV)/.with-dev ## Write the golden pipeline files again, after a wanted change of an interface
	$(RUN) -m pipelines.compile --registry registry.example.com --tag golden \
		--volume affectflow-data --output-dir tests/golden

.PHONY: ui
ui: $(VENV)/.with-torch ## Open MLflow on the runs in WORK, at http://127.0.0.1:5000
	$(RUN) -m mlflow ui --backend-store-uri "sqlite:///$(abspath $(WORK))/mlflow.db" --host 127.0.0.1 --port 5000

.PHONY: docs
docs: $(VENV)/.with-dev ## Build the site in docs/ into site/
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

.PHONY: images
images: $(VENV)/.with-torch ## Build the container images; FLAGS="--registry R --push"
	$(RUN) docker/build.py $(FLAGS)

.PHONY: stack stack-check stack-stop
stack: $(VENV)/.with-stack ## Start PostgreSQL, S3 and an MLflow server here, for pipelines.local --stack
	$(RUN) -m pipelines.stack start

stack-check: $(VENV)/.with-stack ## Ask each of them whether it is well
	$(RUN) -m pipelines.stack check

stack-stop: $(VENV)/.with-stack ## Stop them; what is stored stays
	$(RUN) -m pipelines.stack stop

.PHONY: test-containers
test-containers: $(VENV)/.with-dev ## Build the images and run pipelines in them; PART=data without torch
	PART=$(PART) tests/containers/run.sh $(ARGS)

.PHONY: test-manifests
test-manifests: $(VENV)/.with-dev $(VENV)-checkov/.ready ## Check the manifests, with checkov
	AFFECTFLOW_CHECKOV=$(abspath $(VENV)-checkov/bin/checkov) $(RUN) -m pytest tests/manifests $(ARGS)

.PHONY: nightly
nightly: test test-nightly test-faults test-manifests test-containers bench-guard bench ## All that takes longer than a change should wait

.PHONY: constraints
constraints: $(VENV)/.with-dev ## Pin the newest versions that the project allows
	$(RUN) -m pip install -q uv
	$(RUN) -m uv pip compile pyproject.toml --all-extras --universal --python-version 3.11.0 --upgrade \
		--no-header --no-annotate -o constraints.txt

.PHONY: clean
clean: ## Delete the environment and all that was made
	rm -rf $(VENV) $(VENV)-checkov runs out dist build site .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.with-torch: $(VENV)/bin/python pyproject.toml constraints.txt
	$(RUN) -m pip install -q -c constraints.txt -e '.[torch]'
	@touch $@

$(VENV)/.with-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(RUN) -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.with-torch $(VENV)/.with-stack

$(VENV)/.with-stack: $(VENV)/bin/python pyproject.toml constraints.txt
	$(RUN) -m pip install -q -c constraints.txt -e '.[torch,stack]'
	@touch $@ $(VENV)/.with-torch

# Apart, since checkov pins what others need newer.
$(VENV)-checkov/.ready:
	$(PYTHON) -m venv $(VENV)-checkov
	$(VENV)-checkov/bin/python -m pip install -q checkov==3.3.30
	@touch $@

$(VENV)/.with-audit: $(VENV)/.with-dev pyproject.toml constraints.txt
	$(RUN) -m pip install -q -c constraints.txt -e '.[dev,audit]'
	@touch $@
