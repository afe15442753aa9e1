#!/usr/bin/env bash
# Finds the Python interpreters to build and test with, and prints one line
# "VENV VERSION INTERPRETER" for each: first the default ($PYTHON, or the oldest
# one found), then the other tested versions. Names those not found on stderr.
set -euo pipefail

TESTED="3.11 3.12 3.13"
NEWER="3.14 3.15"

# Prints "VERSION INTERPRETER" if $1 can build the library, else the reason.
# The base interpreter is printed because $1 may belong to an active virtual
# environment, which the caller may be about to replace.
probe() {
  "$1" -c '
import sys
if sys.version_info < (3, 11):
    sys.exit(f"{sys.executable}: Python 3.11 or newer is needed")
import importlib.util, os, sysconfig
version = "%d.%d" % sys.version_info[:2]
if not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
    sys.exit(f"{sys.executable}: no venv or ensurepip (Debian: python{version}-venv)")
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    sys.exit(f"{sys.executable}: no Python.h (Debian: python{version}-dev)")
print(version, sys._base_executable)' 2>&1
}

# Prints the probe of the first usable Python of version $1. Without one, prints
# on stderr why those that run are not usable.
find_version() {
  local candidate found reasons=""
  while read -r candidate; do
    # A shim can exist for a version that is not active: it fails to run.
    "$candidate" -c "" >/dev/null 2>&1 || continue
    if found=$(probe "$candidate"); then
      echo "$found"
      return
    fi
    reasons+="$found"$'\n'
  done < <(
    type -aP "python$1" || true
    ls -d "$(pyenv root 2>/dev/null || echo /nonexistent)/versions/$1".*/bin/python 2>/dev/null |
      sort -rV
  )
  printf '%s' "$reasons" >&2
  return 1
}

default=""
if [[ -n ${PYTHON:-} ]]; then
  if ! default=$(probe "$PYTHON"); then
    echo "PYTHON=$PYTHON cannot be used: $default" >&2
    exit 1
  fi
fi

others=""
for version in $TESTED; do
  if [[ ${default%% *} == "$version" ]]; then
    continue
  elif ! found=$(find_version "$version"); then
    echo "Python $version not found: not tested" >&2
  elif [[ -z $default ]]; then
    default=$found
  else
    others+=".venv-$version $found"$'\n'
  fi
done
for version in $NEWER; do
  [[ -n $default ]] || default=$(find_version "$version") || true
done
if [[ -z $default ]]; then
  echo "No usable Python 3.11 or newer: install one, or set PYTHON to its path" >&2
  exit 1
fi
printf '.venv %s\n%s' "$default" "$others"
