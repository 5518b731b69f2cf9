#!/usr/bin/env bash
# Measures every bar of docs/performance.md beside its peer and writes the figures there.
#   benches/run.sh                the whole table, under 30 minutes once everything is built
#   benches/run.sh acks commits   some rows, only printed
#   benches/run.sh --quick        short rounds, only printed
# Needs Rust and Python 3; installs the peers itself, into ~/.cache/lakegram.
set -euo pipefail
cd "$(dirname "$0")/.."

cache="${XDG_CACHE_HOME:-$HOME/.cache}/lakegram"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
mkdir -p "$cache"

venv="$cache/venv-bench-$(sha256sum benches/peers/requirements.txt | cut -c1-12)"
if [ ! -e "$venv/ready" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet -r benches/peers/requirements.txt
    touch "$venv/ready"
fi
export LAKEGRAM_BENCH_PYTHON="$venv/bin/python"

ulimit -n 8192
exec cargo bench --quiet --bench performance -- "$@"
