# `make` lists the targets. `make run` and `make test` are the whole set-up on a fresh Debian machine that has
# the Rust toolchain: what else they need, they install.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
CONFIG ?= conf/demo.yaml
# Options of the bench, which takes about 40 minutes without any. For instance: make bench BENCH="--quick --only tiny"
BENCH ?=
# Names of long tests, for instance: make drill DRILL=cuts
DRILL ?=
TARGET := $(or $(CARGO_TARGET_DIR),target)
PACKAGES := scripts/system-packages.sh

.PHONY: help run build test drill fuzz check fmt lint doc deny bench soak micro clean toolchain build-packages test-packages

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## build, and serve the demo site in the foreground (CONFIG=file for another one)
	@TIDEGATE_DEMO_BIN=$(TARGET)/release exec $(TARGET)/release/tidegate run -c $(CONFIG)

build: build-packages ## build the release binaries: tidegate and upstream-demo
	@$(CARGO) build --release --locked -p tidegate -p upstream-demo

# Everything CI runs, cheapest first. The runner comes last, so that its summary closes the output.
test: test-packages ## run everything CI runs
	@tests/setup-python.sh
	@$(MAKE) lint
	@$(CARGO) build --quiet --workspace --bins --locked
	@$(CARGO) test --quiet --workspace --doc --locked
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	    exec $(CARGO) nextest run --workspace --locked --no-fail-fast; \
	else \
	    exec $(CARGO) test --workspace --lib --bins --tests --locked --no-fail-fast; \
	fi

drill: test-packages ## run the long forms of the integration tests (DRILL=name for some of them; tests/README.md)
	@tests/setup-python.sh
	@$(PACKAGES) slowhttptest
	@$(CARGO) build --quiet --workspace --bins --locked
	@$(CARGO) test --locked -p tidegate-traffic -p tidegate-supervisor --lib -- --ignored --nocapture --test-threads=1 $(DRILL)
	@exec $(CARGO) test --locked -p tidegate-tests --test integration -- \
	    --ignored --nocapture --test-threads=1 $(DRILL)

fuzz: build-packages ## fuzz the HTTP/1 codec, each target for FUZZ_SECONDS (60)
	@scripts/fuzz.sh

check: lint doc ## what needs no test run: format, lints, documentation

fmt: toolchain ## format the code
	@$(CARGO) fmt --all

lint: build-packages ## check the format and the lints, warnings denied
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --quiet --workspace --all-targets --locked -- -D warnings

doc: build-packages ## build the documentation of our packages, warnings denied
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --workspace --no-deps --locked

deny: toolchain ## check the dependencies: licences, sources, bans, advisories
	@$(CARGO) deny --version >/dev/null 2>&1 || \
	    { echo "error: cargo-deny is missing; install it with: cargo install --locked cargo-deny" >&2; exit 1; }
	@$(CARGO) deny --workspace --locked check

bench: build-packages ## measure side by side with nginx and haproxy (BENCH="--help" for its options)
	@$(PACKAGES) nginx haproxy openssl strace valgrind
	@$(CARGO) build --release --locked -p tidegate -p upstream-demo -p tidegate-benches
	@exec $(TARGET)/release/bench --binaries $(TARGET)/release $(BENCH)

soak: build ## hold 500 clients on each protocol for a minute, with reloads, and count errors
	@$(PACKAGES) curl h2load python3
	@TIDEGATE_BIN_DIR=$(TARGET)/release scripts/soak.sh

micro: build-packages ## measure router, balancer and codec alone
	@$(CARGO) bench --locked -p tidegate-benches --benches

clean: toolchain ## remove what was built and measured
	@$(CARGO) clean
	@rm -rf benches/out tests/.venv

toolchain:
	@command -v $(CARGO) >/dev/null || \
	    { echo "error: cargo is not on this machine; install the Rust toolchain from https://rustup.rs and open a new shell" >&2; exit 1; }

# cmake and a C compiler build the C parts of the engine below us (zlib-ng, zstd, aws-lc).
build-packages: toolchain
	@$(PACKAGES) cc cmake

test-packages: build-packages
	@$(PACKAGES) curl h2load haproxy nginx node openssl puma python3 strace venv
