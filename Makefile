# Two commands for newcomers: `make demo` and `make test`. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
# Most tests wait for a server most of the time: more of them at once than there are cores. Eight have
# ports of their own (tests/support/server.py).
PYTEST_ARGS ?= -n 8 --dist loadgroup --durations 30 --durations-min 5
# What each test did, for tests/table.py and .ci/verdict.py. DURATIONS=1 prints the cost of each file.
REPORTS ?= .cache/reports
REPORT = $(if $(DURATIONS),--costs) --report-log-exclude-logs-on-passed-tests --report-log=$(REPORTS)
BIN := $(VENV)/bin

.PHONY: demo test test-engine test-python compiled-tests test-all parts extended tables lint types sanitize interleavings kqueue-way windows-way bench wheel wheels site site-check clean

# WORKERS=4 serves it by as many processes of gunicorn, which share groups.
demo: $(VENV)/installed $(if $(WORKERS),$(VENV)/installed-gunicorn)
	$(BIN)/python examples/chat/manage.py migrate --verbosity 0
	@echo "The demo is on http://127.0.0.1:8000/"
	$(if $(WORKERS),$(BIN)/gunicorn --chdir examples/chat --bind 127.0.0.1:8000 \
		--workers $(WORKERS) --threads 4 demo.wsgi,$(BIN)/python examples/chat/manage.py \
		runserver 127.0.0.1:8000)

# Compiled once, not by every process that a test starts.
unexport PYTHONDONTWRITEBYTECODE

# Most of the engine's tests wait: more of them than there are processors go at once.
export RUST_TEST_THREADS = 8
# What its tests generate: this many cases each. How long they provoke races: this many seconds each.
export PROPTEST_CASES = $(if $(EVERY),3000,128)
export RACE_SECONDS = $(if $(EVERY),5,1)

# The tests that need only pip and cargo, on the servers that most projects run: four minutes on two
# cores, and four more where all has to be compiled first.
test:
	@$(MAKE) --no-print-directory -j2 $(VENV)/installed-tests compiled-tests
	@$(MAKE) --no-print-directory -k -j2 test-engine test-python

# They run beside Python's tests, as most of them wait. Their output is printed once, at their end.
test-engine:
	@output=$$(cargo test --quiet --no-fail-fast --no-default-features 2>&1); status=$$?; \
	printf '\n%s\n' "$$output"; exit $$status

# What cannot be collected fails in the tests, too, which report it.
test-python: $(VENV)/installed-tests
	-@$(MAKE) --no-print-directory .cache/collected
	$(BIN)/python -m pytest --tier basic $(REPORT)/basic.jsonl $(PYTEST_ARGS)

# pytest rewrites the assertions of each file, and keeps the result: once, not in each of its processes.
.cache/collected: $(VENV)/installed-tests $(shell find tests -name '*.py' -not -path '*/node_modules/*')
	$(BIN)/python -m pytest --collect-only -qq >/dev/null
	@mkdir -p $(@D) && touch $@

compiled-tests:
	cargo test --quiet --no-run --no-default-features

# The others as well: each server, proxies, browsers, databases. APT=1 installs what Debian's packages
# bring. EVERY=1 runs the whole list of behaviours on each variant of a server, compares with the original
# package, and opens the largest numbers of connections: most of an hour.
test-all: test extended

# Says which of Debian's packages are missing, and installs the rest that extended tests need.
parts: $(VENV)/requirements
	APT=$(APT) EVERY=$(EVERY) PYTHON=$(BIN)/python bash tests/setup

extended: $(VENV)/installed-tests parts
	$(BIN)/python -m pytest --tier extended $(REPORT)/extended.jsonl \
		--compared tests/wild/compared.json $(if $(EVERY),--every-server) $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory tables

# Whether the tables of servers and of scenarios in the documentation are what the tests have found.
tables:
	$(BIN)/python tests/table.py --check $(if $(EVERY),--whole) $(wildcard $(REPORTS)/basic.jsonl $(REPORTS)/extended.jsonl)
	$(BIN)/python tests/comparison.py --check

lint: types
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	$(if $(EVERY),cargo clippy --quiet --all-targets --no-default-features -- -D warnings)
	$(BIN)/ruff check
	$(BIN)/ruff format --check python tests
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest dwebsocket._core

# What mypy and pyright say about code that uses the package: a project whose every line has types,
# with mistakes that they have to find, and the examples. Needs Node.
types: $(VENV)/installed-tests
	$(BIN)/mypy --config-file tests/typed_project/mypy.ini
	$(BIN)/mypy --config-file tests/typed_project/without_stubs.ini
	$(BIN)/pyright --pythonpath $(BIN)/python --project tests/typed_project
	$(BIN)/pyright --pythonpath $(BIN)/python --project tests/typed_project/examples.json

# The tests under tools that find wrong uses of memory and threads; needs valgrind, 15 minutes.
sanitize: $(VENV)/installed-tests
	tests/sanitize address
	tests/sanitize thread
	tests/sanitize valgrind

# Tries out many orders of the threads at the engine's queues.
interleavings:
	RUSTFLAGS="--cfg shuttle -D warnings" cargo test --quiet --no-default-features --lib --target-dir target/shuttle interleavings

# The engine's tests with the readiness that kqueue reports, as on macOS: on Linux by epoll all the same.
kqueue-way:
	RUSTFLAGS="--cfg kqueue_way" cargo test --quiet --no-default-features --lib --test engine --target-dir target/kqueue

# The same with pairs of sockets and readiness as on Windows.
windows-way:
	RUSTFLAGS="--cfg windows_way" cargo test --quiet --no-default-features --lib --test engine --test portable --target-dir target/windows

# Writes tables to bench/record/ and charts to docs/bench/, and needs a quiet machine for that.
# QUICK=1 for a first look and GOALS=1 for what the goals compare print tables only.
bench:
	QUICK=$(QUICK) GOALS=$(GOALS) $(PYTHON) bench/run.py $(if $(QUICK)$(GOALS),,--record)

wheel:
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir $(or $(DIST),dist) .

# Those of a release, for each system that this machine can build for, and the source distribution.
wheels:
	PYTHON=$(PYTHON) .ci/wheels dist
	PYTHON=$(PYTHON) .ci/sdist dist

# The documentation as a site, in dist/site. Broken links are errors. Needs npm.
site: .cache/site/installed
	NO_MKDOCS_2_WARNING=1 .cache/site/venv/bin/mkdocs build --quiet

# Each of its pages in Chromium, at the width of a desktop and of a phone.
site-check: site $(VENV)/installed-tests
	SITE=dist/site $(BIN)/python -m pytest tests/docs/test_site.py $(REPORT)/site.jsonl

.cache/site/installed: docs/site/requirements.txt
	$(PYTHON) -m venv .cache/site/venv
	.cache/site/venv/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	npm install --silent --no-audit --no-fund --prefix .cache/site mermaid
	@touch $@

clean:
	rm -rf $(VENV) target dist .cache

SOURCES := $(shell find src python -name '*.rs' -o -name '*.py' -o -name '*.pyi' \
	-o -path '*/static/*.*') Cargo.toml Cargo.lock pyproject.toml

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# WHEEL=FILE installs that one; nothing is compiled then. Without optimisation across crates, which the
# wheels of a release have, compiling takes half as long.
$(VENV)/installed: $(VENV)/bin/python $(SOURCES)
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 $(BIN)/python -m pip install --quiet $(if $(WHEEL),--force-reinstall $(WHEEL),.)
	@touch $@

$(VENV)/installed-gunicorn: $(VENV)/installed
	$(BIN)/python -m pip install --quiet gunicorn
	@touch $@

# First what has not to be compiled; one pip at a time in an environment.
$(VENV)/installed-tests: $(VENV)/requirements $(SOURCES)
	@$(MAKE) --no-print-directory $(VENV)/installed
	@touch $@

$(VENV)/requirements: $(VENV)/bin/python tests/requirements.txt
	$(BIN)/python -m pip install --quiet -r tests/requirements.txt
	@touch $@
