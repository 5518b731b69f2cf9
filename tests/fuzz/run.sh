#!/usr/bin/env bash
# Fuzzes every target for a while: tests/fuzz/run.sh [SECONDS EACH, default 180] [TARGET...]
# Needs Rust and a C++ compiler; installs cargo-fuzz itself. What it finds goes to tests/fixtures/found/<target>, where
# the unit tests read it.
set -euo pipefail
cd "$(dirname "$0")/../.."

cache="${XDG_CACHE_HOME:-$HOME/.cache}/lakegram"
export CARGO_TARGET_DIR="${LAKEGRAM_FUZZ_TARGET_DIR:-$cache/target-fuzz}"
export PATH="$cache/tools/bin:$PATH"
# Coverage instrumentation is a flag of the compiler that stable hides.
export RUSTC_BOOTSTRAP=1
# The same versions as the product's.
cp Cargo.lock tests/fuzz/Cargo.lock
command -v cargo-fuzz >/dev/null || cargo install --quiet cargo-fuzz --root "$cache/tools"

seconds="${1:-180}"
[ $# -gt 0 ] && shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(update segment pipeline_file reply)

for target in "${targets[@]}"; do
    printf '\n==> %s, %s s\n' "$target" "$seconds"
    corpus="$cache/fuzz-corpus/$target"
    mkdir -p "$corpus" "tests/fixtures/found/$target"
    case "$target" in
        update | segment) cp -n tests/fixtures/updates/*.json "$corpus" ;;
        pipeline_file) cp -n pipelines/*.toml "$corpus" ;;
        reply) cp -n README.md docs/*.md "$corpus" ;;
    esac
    cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none "$target" "$corpus" "tests/fixtures/found/$target" -- \
        -max_total_time="$seconds" -max_len=16384 -print_final_stats=1 -artifact_prefix="tests/fixtures/found/$target/" \
        -verbosity=0
done
