#!/usr/bin/env bash
# All checks and tests: format, lints, unit, integration and doc tests, and the foreign readers.
# Needs Rust, a C compiler and Python 3; installs the rest itself, into ~/.cache/lakegram.
set -euo pipefail
cd "$(dirname "$0")/.."

cache="${XDG_CACHE_HOME:-$HOME/.cache}/lakegram"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
mkdir -p "$cache"

step() { printf '\n==> %s\n' "$*"; }

# jemalloc is built with it.
command -v make >/dev/null || apt-get install --yes --quiet make >/dev/null

step "Python readers (deltalake, Polars; PySpark where it can be had)"
venv="$cache/venv-$(cat tests/readers/requirements*.txt | sha256sum | cut -c1-12)"
if [ ! -x "$venv/bin/python" ] || [ ! -e "$venv/ready" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet -r tests/readers/requirements.txt
    "$venv/bin/pip" install --quiet -r tests/readers/requirements-spark.txt || echo "PySpark could not be installed"
    touch "$venv/ready"
fi
export LAKEGRAM_TEST_PYTHON="$venv/bin/python"

step "format"
cargo fmt --check

step "lints"
cargo clippy --quiet --all-targets -- -D warnings
# A service can be built without the demo, and the demo without what tests do to its stand-ins.
for features in sql,cloud sql,cloud,demo; do
    cargo clippy --quiet --no-default-features --features "$features" -- -D warnings
done

step "unit and integration tests"
cargo test --quiet --lib --bins --test integration

step "doc tests"
cargo test --quiet --doc

step "strace, a full disk and an unmounted volume"
# A group of its own: it needs the rights to trace and to mount. A test that may not says SKIPPED.
command -v strace >/dev/null || apt-get install --yes --quiet strace >/dev/null 2>&1 || true
cargo test --quiet --test integration -- --ignored --nocapture strace full_disk unmounted

step "Spark"
# A group of its own: it needs Java and the jars of Delta, which not every machine can have.
if "$LAKEGRAM_TEST_PYTHON" tests/readers/spark.py --probe; then
    cargo test --quiet --test integration -- --ignored spark
else
    printf '\nSKIPPED: the Spark group did not run (no Java, no PySpark or no Delta jars here). It has not passed.\n\n'
fi
