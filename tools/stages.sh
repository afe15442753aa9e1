#!/usr/bin/env bash
# stages.sh MAKE TARGET...: makes the targets one after the other, up to the
# first that fails, and prints at the end how many seconds each took.
set -euo pipefail

make=$1
shift
stage=""
times=""

finish() {
  [[ -z $stage ]] || times+="$(printf '%5d s  %s, failed' $((SECONDS - start)) "$stage")"$'\n'
  printf '== seconds by stage\n%s%5d s  in all\n' "$times" "$SECONDS"
}
trap finish EXIT

for stage; do
  echo "== $stage"
  start=$SECONDS
  "$make" --no-print-directory "$stage"
  times+="$(printf '%5d s  %s' $((SECONDS - start)) "$stage")"$'\n'
done
stage=""
