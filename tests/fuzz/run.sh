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

logs="$cache/fuzz-logs"
mkdir -p "$logs"
broken=()
for target in "${targets[@]}"; do
    printf '\n==> %s, %s s\n' "$target" "$seconds"
    corpus="$cache/fuzz-corpus/$target"
    found="tests/fixtures/found/$target"
    mkdir -p "$corpus" "$found"
    case "$target" in
        update | segment) seeds=(tests/fixtures/updates/*.json) ;;
        pipeline_file) seeds=(pipelines/*.toml) ;;
        reply) seeds=(README.md docs/*.md) ;;
        *) echo "there is no target $target" >&2; exit 2 ;;
    esac
    for seed in "${seeds[@]}"; do
        [ -e "$corpus/$(basename "$seed")" ] || cp "$seed" "$corpus"
    done
    # Our own folder of inputs comes last: libFuzzer writes what is new to the first.
    cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none "$target" "$corpus" "$found" -- \
        -max_total_time="$seconds" -max_len=16384 -timeout=20 -print_final_stats=1 -artifact_prefix="$found/" \
        >"$logs/$target.log" 2>&1 || broken+=("$target")
    # The last line about coverage, the figures, and whatever broke a law.
    grep -E 'cov: ' "$logs/$target.log" | tail -n 1 || true
    grep -E '^stat::|ERROR: libFuzzer|^error' "$logs/$target.log" || true
    grep -A 1 'panicked at' "$logs/$target.log" || true
done
# Made by cargo-fuzz, and empty: inputs have the two folders above.
rmdir tests/fuzz/artifacts/* tests/fuzz/artifacts tests/fuzz/corpus/* tests/fuzz/corpus 2>/dev/null || true
if [ ${#broken[@]} -gt 0 ]; then
    echo "broken: ${broken[*]}; the logs are in $logs, the inputs in tests/fixtures/found" >&2
    exit 1
fi
