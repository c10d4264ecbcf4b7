#!/bin/bash
# Fuzzes the HTTP/1 codec: each target of fuzz/ for FUZZ_SECONDS (default 60), one after the other.
#
#   scripts/fuzz.sh [TARGET...]
#
# It starts from the corpus in fuzz/corpus and the vectors, and keeps what it finds in the build folder. An input that
# breaks a promise ends it with status 1; put that input into fuzz/corpus/TARGET, where every test run tries it.
# The compiler takes the flags that cargo-fuzz would give it; neither cargo-fuzz nor a nightly compiler is needed.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${FUZZ_SECONDS:-60}
build=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
mkdir -p "$build"
build=$(cd "$build" && pwd)
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(request_head response_head chunked_body policies)

# The vectors as seeds: the test that replays them writes them out.
FUZZ_SEEDS=$build/seeds cargo test --quiet --locked -p tidegate-http1 --test corpus -- every_target_holds_for_every_vector >/dev/null

# Coverage of every edge and comparison. No address sanitizer: the codec has no unsafe code that it could watch.
flags=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    --cfg fuzzing
)
# With a target triple, so that the flags do not reach build scripts.
triple=$(rustc -vV | sed -n 's/^host: //p')
(cd fuzz && RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR=$build \
    cargo build --quiet --release --locked --target "$triple" --bins)

for target in "${targets[@]}"; do
    mkdir -p "$build/found/$target" "$build/artifacts"
    echo "fuzzing $target for $seconds s"
    "$build/$triple/release/$target" -max_total_time="$seconds" -max_len=4200 -timeout=20 -verbosity=0 -print_final_stats=1 \
        -artifact_prefix="$build/artifacts/$target-" \
        "$build/found/$target" "fuzz/corpus/$target" "$build/seeds/$target" 2>"$build/$target.log" || {
        tail -n 60 "$build/$target.log" >&2
        echo "error: $target found an input that breaks a promise: see $build/artifacts" >&2
        exit 1
    }
    grep -E '^stat::(number_of_executed_units|average_exec_per_sec)' "$build/$target.log"
done
