#!/usr/bin/env bash
# Finds a Python that can run the project and hands over to setup.py. Set PYTHON to choose one.
set -euo pipefail
cd "$(dirname "$0")/.."

usable() { # a Python of a supported version with the venv module
  command -v "$1" > /dev/null 2>&1 &&
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null
}

for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3 python; do
  if usable "$candidate"; then
    exec "$candidate" scripts/setup.py "$@"
  fi
done

cat >&2 << 'END'
No usable Python was found: Whet needs Python 3.11, 3.12 or 3.13 with the venv and ensurepip modules.
Install one (on Debian or Ubuntu: apt-get install python3 python3-venv), or set PYTHON=/path/to/python3.
END
exit 1
