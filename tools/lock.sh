#!/usr/bin/env bash
# Writes requirements/test.txt: the newest versions that pyproject.toml allows
# for Python $1, all pinned. Use the oldest supported version, for which every
# newer one also has packages. Writes requirements/uv.txt, what installs them.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$1" -m venv "$scratch/venv"

"$scratch/venv/bin/python" - >"$scratch/wanted.txt" <<'PY'
import tomllib

with open("pyproject.toml", "rb") as file:
    pyproject = tomllib.load(file)
wanted = {"cmake", "ninja", *pyproject["build-system"]["requires"]}
for extra in pyproject["project"]["optional-dependencies"].values():
    wanted.update(name for name in extra if not name.startswith("proclink["))
print(*sorted(wanted), sep="\n")
PY

"$scratch/venv/bin/python" -m pip install --quiet --requirement "$scratch/wanted.txt"
"$scratch/venv/bin/python" -m pip freeze >"$scratch/pinned.txt"
{
  echo "# Written by 'make lock'."
  cat "$scratch/pinned.txt"
} >requirements/test.txt

"$scratch/venv/bin/python" -m pip install --quiet uv
{
  echo "# Written by 'make lock'."
  "$scratch/venv/bin/python" -m pip freeze | grep '^uv=='
} >requirements/uv.txt
