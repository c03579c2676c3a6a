#!/usr/bin/env bash
# Create .venv/NAME with this package and its extras, once: scripts/setup_env.sh NAME EXTRAS GIB
# GIB is the disk space that the environment takes, in whole GiB.
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1 extras=$2 gib=$3 venv=.venv/$1

fail() {
  echo "setup: $1" >&2
  exit 1
}

supported() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

find_python() {
  if [ -n "${PYTHON:-}" ]; then
    supported "$PYTHON" && echo "$PYTHON"
    return
  fi
  for candidate in python3.11 python3.12 python3; do
    if supported "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

# An environment serves if it was made from this pyproject.toml with these extras, or with more.
stamp=$venv/.installed-$(cksum <pyproject.toml | cut -d ' ' -f 1)-$extras
if compgen -G "$stamp*" >/dev/null && "$venv/bin/python" -c '' 2>/dev/null; then
  exit 0
fi

python=$(find_python) || fail "expected Python 3.11 or 3.12, found ${PYTHON:-none}: install python3.11, or name one with make PYTHON=/path/to/python"
free=$(df --output=avail -BG . | tail -n 1 | tr -dc '0-9')
[ "$free" -ge "$gib" ] || fail "$venv takes $gib GiB, $free GiB are free here: make room and run again"
if ! "$venv/bin/python" -c '' 2>/dev/null; then
  rm -rf "$venv"
  echo "setup: creating $venv"
  "$python" -m venv "$venv" || fail "$python cannot make virtual environments: install its venv module (python3-venv)"
fi
echo "setup: installing tvm-passes[$extras] into $venv, a few minutes the first time"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]" ||
  fail "pip could not install the packages (its reason is above): check the network and the package index, then run again; what was downloaded is kept"
rm -f "$venv"/.installed-*
touch "$stamp"
