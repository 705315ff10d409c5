# Two commands for newcomers: `make demo` and `make test`. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
# Most tests wait for a server most of the time: more of them at once than there are cores.
PYTEST_ARGS ?= -n 6 --dist loadgroup
OUTCOMES := .cache/outcomes.json
BIN := $(VENV)/bin

.PHONY: demo test test-all parts extended lint sanitize interleavings bench wheel clean

# WORKERS=4 serves it by as many processes of gunicorn, which share groups.
demo: $(VENV)/installed $(if $(WORKERS),$(VENV)/installed-gunicorn)
	$(BIN)/python examples/chat/manage.py migrate --verbosity 0
	@echo "The demo is on http://127.0.0.1:8000/"
	$(if $(WORKERS),$(BIN)/gunicorn --chdir examples/chat --bind 127.0.0.1:8000 \
		--workers $(WORKERS) --threads 4 demo.wsgi,$(BIN)/python examples/chat/manage.py \
		runserver 127.0.0.1:8000)

# The tests that need only pip and cargo, on the servers that most projects run.
test: $(VENV)/installed-tests
	cargo test --quiet --no-default-features
	@rm -f $(OUTCOMES)
	$(BIN)/python -m pytest --tier basic --outcomes $(OUTCOMES) $(PYTEST_ARGS)

# The others as well: each server and version, proxies, browsers. APT=1 installs what Debian's
# packages bring. EVERY=1 runs the whole list of behaviours on each variant of a server, compares with
# the original package, and opens the largest numbers of connections: most of an hour.
test-all: parts test extended

# Says which of Debian's packages are missing, and installs the rest that extended tests need.
parts: $(VENV)/installed-tests
	APT=$(APT) EVERY=$(EVERY) PYTHON=$(BIN)/python bash tests/setup

extended: parts
	$(BIN)/python -m pytest --tier extended --outcomes $(OUTCOMES) \
		--compared tests/wild/compared.json $(if $(EVERY),--every-server) $(PYTEST_ARGS)
	$(BIN)/python tests/table.py --check
	$(BIN)/python tests/comparison.py --check

lint: $(VENV)/installed-tests
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo clippy --quiet --all-targets --no-default-features -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check python tests
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest dwebsocket._core

# The tests under tools that find wrong uses of memory and threads; needs valgrind, 15 minutes.
sanitize: $(VENV)/installed-tests
	tests/sanitize address
	tests/sanitize thread
	tests/sanitize valgrind

# Tries out many orders of the threads at the engine's queues.
interleavings:
	RUSTFLAGS="--cfg shuttle" cargo clippy --quiet --no-default-features --lib --tests --target-dir target/shuttle -- -D warnings
	RUSTFLAGS="--cfg shuttle" cargo test --quiet --no-default-features --lib --target-dir target/shuttle interleavings

# Writes tables to bench/record/ and charts to docs/bench/, and needs a quiet machine for that.
# QUICK=1 for a first look and GOALS=1 for what the goals compare print tables only.
bench:
	QUICK=$(QUICK) GOALS=$(GOALS) $(PYTHON) bench/run.py $(if $(QUICK)$(GOALS),,--record)

wheel:
	$(PYTHON) -m pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) target dist .cache

SOURCES := $(shell find src python -name '*.rs' -o -name '*.py' -o -name '*.pyi' \
	-o -path '*/static/*.*') Cargo.toml Cargo.lock pyproject.toml

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/installed: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install --quiet .
	@touch $@

$(VENV)/installed-gunicorn: $(VENV)/installed
	$(BIN)/python -m pip install --quiet gunicorn
	@touch $@

$(VENV)/installed-tests: $(VENV)/installed tests/requirements.txt
	$(BIN)/python -m pip install --quiet -r tests/requirements.txt
	@touch $@
