# The verbs of this repository. Each sets up .venv by itself; another Python than python3: make test PYTHON=python3.14

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# For maturin and for PyO3's build script, which must agree on the interpreter or each rebuilds the other's work.
export VIRTUAL_ENV := $(abspath $(VENV))
export PYO3_PYTHON := $(abspath $(BIN))/python

.PHONY: demo test fuzz conformance ecosystem asan free-threaded other-systems lint build load gate shares bench bench-quick bench-rust conduct clean

# FastAPI under uvicorn and aiohttp on hotloop, asyncio and uvloop: about a minute behind the set-up.
demo: build load $(VENV)/demo.installed $(VENV)/peers.installed
	$(BIN)/python -m benchmarks.demo

# Everything: the checks, the tests that need no Python, and those that do, on every core up to four. Random cases are the
# same ones in every run, so that a failure is that of the change under test.
test: lint
	PROPTEST_RNG_SEED=1 cargo test -p hotloop -p hotloop-load -p hotloop-bench --features hotloop/tls
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

# What `test` tries with a few random cases, with many and other ones: a few minutes behind the build. A failure tells its seed.
# The programs of tests/fuzz: SEEDS of them, from a seed drawn at random; SEEDS=all goes on until something is found.
SEEDS ?= 20000
fuzz: build
	PROPTEST_CASES=20000 cargo test -p hotloop --features tls --release -- --nocapture
	HOTLOOP_FAULT_SEED="$$(shuf -i 1-1000000 -n 4 | xargs)" $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 tests/test_faults.py
	HOTLOOP_WHOLE_GRID=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 tests/test_getaddrinfo.py
	$(BIN)/python tests/fuzz $(if $(filter all,$(SEEDS)),,--seeds $(SEEDS))

# CPython's own asyncio tests, those of $(PYTHON), on the selector loop or on LOOP=proactor; with a version, in an
# interpreter of its own.
LOOP ?= hotloop
conformance: build
	$(BIN)/python tests/conformance --loop $(LOOP) --json target/conformance.json

conformance-3.%:
	scripts/interpreters.sh
	scripts/in-interpreter --build 3.$* python tests/conformance --loop $(LOOP) --json target/conformance-3.$*.json

# The tests of Python, in an interpreter of its own.
test-3.%: packages-3.%
	scripts/in-interpreter --build --venv tests 3.$* \
		python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

packages-3.%:
	scripts/interpreters.sh
	scripts/in-interpreter 3.$* scripts/services.sh
	scripts/in-interpreter --venv tests 3.$* \
		pip install --quiet -r requirements/dev.txt -r requirements/demo.txt -r requirements/ecosystem.txt

# The libraries' own test suites, on LOOPS and on stock asyncio: LIBRARIES of them, or all, in an hour or more.
LIBRARIES ?=
LOOPS ?= hotloop proactor
ecosystem: build
	scripts/services.sh
	$(BIN)/python tests/suites $(LIBRARIES) $(addprefix --loop ,$(LOOPS))

# The engine's tests under AddressSanitizer, which stable Rust has only behind this door.
asan: export ASAN_OPTIONS := quarantine_size_mb=8
asan: export LSAN_OPTIONS := suppressions=$(abspath scripts/lsan.txt)
asan: export RUSTC_BOOTSTRAP := 1
asan: export RUSTFLAGS := -Zsanitizer=address
asan: TARGET = $(shell rustc -vV | sed -n 's/^host: //p')
asan:
	cargo build -p hotloop --examples --target $(TARGET)
	HOTLOOP_SOAK=60 cargo test -p hotloop --tests --target $(TARGET)

# What a free-threaded interpreter would compile, without one: its types, not its behaviour.
free-threaded:
	PYO3_CONFIG_FILE=$(abspath scripts/free-threaded.txt) cargo check -p hotloop-python --target-dir target/free-threaded

# What the Rust crate and its tests would compile on macOS and the BSDs, without one: their types, not their behaviour. It
# needs those systems' standard libraries, and fails where one is missing; C code of other crates is left out.
OTHER_SYSTEMS ?= x86_64-unknown-freebsd aarch64-apple-darwin x86_64-apple-darwin
other-systems:
	@for target in $(OTHER_SYSTEMS); do \
		if [ ! -d "$$(rustc --print target-libdir --target $$target)" ]; then \
			echo "no standard library for $$target: rustup target add $$target" >&2; exit 1; \
		fi; \
	done
	CC=true AR=true cargo clippy -p hotloop --all-targets --features tls $(addprefix --target ,$(OTHER_SYSTEMS)) -- -D warnings

lint: build $(VENV)/demo.installed $(VENV)/ecosystem.installed
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features hotloop/tls -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p hotloop -p benchmarks
	$(BIN)/python -m mypy.stubtest hotloop._hotloop

# The extension, in release mode, installed into .venv.
build: $(VENV)/dev.installed
	$(BIN)/maturin develop --release

load:
	cargo build --release -p hotloop-load

# Whether an operation takes more instructions than those on record: three minutes behind the build. After a change that
# was meant: make gate GATE=--record
gate: build
	$(BIN)/python -m benchmarks.gate $(GATE)

# Whose instructions a request of the echo servers and of real ones takes: the loop's, Python's, the C library's. Needs
# valgrind; some ten minutes.
shares: build load $(VENV)/demo.installed $(VENV)/peers.installed
	$(BIN)/python -m benchmarks.shares $(SHARES)

# Every row, on every loop that installs into an interpreter of its own, of the newest Python that most of them have wheels
# for: about three hours, of which what was measured is kept, so that make bench BENCH=--resume goes on. Run as root.
# `python -m benchmarks.report benchmarks/results/bench.json --readme` then shows the run in the project's pages.
bench:
	scripts/interpreters.sh
	HOTLOOP_REVISION=$$(git rev-parse --short=12 HEAD) scripts/in-interpreter --build --venv bench 3.14 \
		scripts/compare --json benchmarks/results/bench.json --plots benchmarks/results/plots $(BENCH)

# The rows that say most, in $(PYTHON), in a few minutes.
bench-quick: build $(VENV)/dev.installed
	PATH=$(abspath $(BIN)):$$PATH scripts/compare --quick --json benchmarks/results/bench-quick.json $(BENCH)

# What the loops that are installed keep of asyncio's semantics, in a minute or two; a run of `make bench` has it already.
# CONDUCT="--into RUN.json" puts it into a stored run.
conduct: build
	$(BIN)/python -m benchmarks.conduct $(CONDUCT)

# The Rust crate's scheduling beside tokio's current-thread runtime: a minute behind the build.
bench-rust:
	cargo run --release -p hotloop-bench

clean:
	rm -rf $(VENV) target python/hotloop/*.so benchmarks/results
	find . -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("hotloop needs Python 3.11 or later: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/%.installed: requirements/%.txt | $(BIN)/python
	$(PIP) -r $<
	touch $@

# uvloop installs on some platforms only, and is left out of the comparisons on others.
$(VENV)/peers.installed: requirements/peers.txt | $(BIN)/python
	grep -v '^#' $< | xargs -n 1 $(PIP) --only-binary :all: || echo 'Some loops do not install here; they are left out.'
	touch $@
