#!/usr/bin/env bash
# soak.sh RUNS COMMAND...: runs the command RUNS times in a row, and as often
# beside four busy loops. Shows the output of each run that fails, and fails at
# the end if one did.
set -euo pipefail
cd "$(dirname "$0")/.."

LOOPS=4
LONGEST=3600 # seconds; no loop outlives this, whatever becomes of this script

runs=$1
shift
mkdir -p build/soak
loops=()
stop() {
  ((${#loops[@]} == 0)) || kill "${loops[@]}" 2>/dev/null || true
  loops=()
}
trap stop EXIT

failed=0
row() { # $1 quiet or busy
  local run begin log
  for ((run = 1; run <= runs; run++)); do
    begin=$SECONDS
    log=build/soak/$1-$run.log
    if "${command[@]}" >"$log" 2>&1; then
      echo "$1 $run of $runs: green, $((SECONDS - begin)) s"
    else
      echo "$1 $run of $runs: FAILED, $((SECONDS - begin)) s"
      cat "$log"
      failed=$((failed + 1))
    fi
  done
}

command=("$@")
row quiet
for ((loop = 0; loop < LOOPS; loop++)); do
  timeout "$LONGEST" bash -c 'while :; do :; done' &
  loops+=($!)
done
row busy
stop
echo "$((2 * runs - failed)) of $((2 * runs)) runs green"
((failed == 0))
