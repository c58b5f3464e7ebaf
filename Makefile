# Everything a contributor runs. `make demo` and `make test` need Python >= 3.11 with pip, and make. As root `make test` also
# installs Debian packages; tests whose programs are not there are skipped with a reason.

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
JS := tests/conformance/js
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq
INSTALL := $(PIP) install --require-hashes --no-build-isolation
UV := .venvs/lock/bin/uv

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow accuracy faults lint lock clean dev clients fresh-demo

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-11s %s\n' "$$name" "$$text"; done

demo: $(VENV)/.runtime  ## Transcribe a real recording live, in this terminal
	@$(BIN)/vivavoce demo

test: dev clients lint  ## Check style and types, run all but the slow tests
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist loadfile

test-slow: dev clients fresh-demo  ## Run what takes minutes, agent frameworks, and the demo in a fresh copy of the tree
	@PYTHON=$(PYTHON) scripts/agent-frameworks pipecat livekit
	@scripts/debian-asterisk .venvs/asterisk
	$(BIN)/python -m pytest -m slow

accuracy: $(VENV)/.dev  ## Print word error rates, live beside whole files (MANIFEST=recordings.json)
	@$(BIN)/python -W ignore scripts/word_error_rate.py $(MANIFEST)

faults: dev clients  ## Break SEEDS=1000 sessions on seeded schedules and compare every byte; SEED=N runs one again
	cd tests && ../$(BIN)/python -m faults $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000))

lint: $(VENV)/.dev  ## Check formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

dev: $(VENV)/.dev

clients: $(VENV)/.dev
	@scripts/debian-packages
	@if ! command -v npm >/dev/null; then echo "npm is missing: the tests of the JavaScript SDK will be skipped"; \
	else $(MAKE) --no-print-directory $(JS)/node_modules/.installed; fi

fresh-demo:
	@scripts/fresh-demo

# One virtual environment serves both commands. Where the system's Python lacks ensurepip, its own pip fills the new one.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "vivavoce needs Python 3.11 or newer; this is $$($(PYTHON) --version 2>&1)." \
			"Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
		|| { rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) \
			&& $(PYTHON) -m pip --python $(VENV)/bin/python -qq install pip; } \
		|| { rm -rf $(VENV); echo "cannot make a virtual environment: install Python's venv module" \
			"(on Debian and Ubuntu: apt install python3-venv)"; exit 1; }

$(VENV)/.build: requirements/build.txt | $(BIN)/python
	@$(PIP) install --require-hashes -r requirements/build.txt
	@touch $@

$(VENV)/.runtime: requirements/runtime.txt pyproject.toml $(VENV)/.build
	@echo "Installing vivavoce into $(VENV): about a minute, about 260 MB to download ..."
	@$(INSTALL) -r requirements/runtime.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	@echo "Installing what the tests and checks need into $(VENV) ..."
	@$(INSTALL) -r requirements/dev.txt
	@touch $@

$(JS)/node_modules/.installed: $(JS)/package-lock.json
	@echo "Installing the JavaScript SDK into $(JS)/node_modules ..."
	@cd $(JS) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(UV):
	@$(PYTHON) -m venv .venvs/lock && .venvs/lock/bin/python -m pip -qq install uv

# The index is whatever this machine's pip uses; it never reaches the files.
lock: $(UV)  ## Pin the newest versions of every dependency, with hashes
	@index="$${PIP_INDEX_URL:-$$($(PYTHON) -m pip config get global.index-url 2>/dev/null)}"; \
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
	compile="$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-header --no-emit-index-url --no-emit-find-links"; \
	$$compile requirements/build.in -o requirements/build.txt && \
	$$compile pyproject.toml -o requirements/runtime.txt && \
	$$compile --group dev -c requirements/runtime.txt -o requirements/dev.txt && \
	for name in pipecat livekit; do \
		$$compile examples/requirements-$$name.txt -o requirements/$$name.txt || exit 1; done
	cd $(JS) && npm install --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund

clean:  ## Remove everything these commands made
	rm -rf $(VENV) .venvs $(JS)/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
