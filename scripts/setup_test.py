"""`make setup-test`: what the tests need beside Python packages: Chromium for the pages, PostgreSQL's programs for the database."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def missing_packages() -> list[str]:
    """Debian package names of what is not on this machine."""
    missing = []
    if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        missing.append("chromium")
    if not (shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))):
        missing.append("postgresql")
    return missing


def main() -> int:
    missing = missing_packages()
    if not missing:
        return 0
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    prefix = _as_root()
    if shutil.which("apt-get") is None or prefix is None:
        print(f"setup-test: the tests need {' and '.join(missing)}, which this script cannot install here. Run: sudo {' '.join(command)}", file=sys.stderr)
        return 1
    print(f"setup-test: installing {', '.join(missing)} with apt-get …", flush=True)
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run([*prefix, "apt-get", "update"], **quiet, env=environment, check=False)  # an old list may do; the next line tells
    return subprocess.run([*prefix, *command], **quiet, env=environment, check=False).returncode


def _as_root() -> list[str] | None:
    """What to put before a command to run it as root; None when that cannot be had without asking."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0:
        return [sudo, "-n"]
    return None


if __name__ == "__main__":
    sys.exit(main())
