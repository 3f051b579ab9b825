"""`make setup-test`: what the tests need beside Python packages: Chromium for the pages,
PostgreSQL's programs for the database, and Prometheus with its Alertmanager, which are unpacked
into `.tools/` and not installed, since an installed one would start as a service.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOOLS = Path(__file__).parents[1] / ".tools"
# Program -> Debian package
_UNPACKED = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
}
# The only place where Debian's Alertmanager looks for its templates, without which it does not
# start
_TEMPLATES = Path("/usr/share/prometheus/alertmanager")
_QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}


def missing_packages() -> list[str]:
    """Debian package names of what is not on this machine."""
    missing = []
    if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        missing.append("chromium")
    if not (shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))):
        missing.append("postgresql")
    return missing


def missing_programs() -> list[str]:
    """Programs that are neither on this machine nor in `.tools/`."""
    unpacked = [
        name
        for name in _UNPACKED
        if (TOOLS / name).is_file() and (_TEMPLATES.is_dir() or name != "prometheus-alertmanager")
    ]
    return [name for name in _UNPACKED if not (shutil.which(name) or name in unpacked)]


def main() -> int:
    packages, programs = missing_packages(), missing_programs()
    if not packages and not programs:
        return 0
    wanted = [*packages, *dict.fromkeys(_UNPACKED[name] for name in programs)]
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    prefix = _as_root()
    if shutil.which("apt-get") is None or prefix is None:
        print(
            f"setup-test: the tests need {' and '.join(wanted)}, which this script cannot get here."
            f" Run: sudo apt-get install {' '.join(wanted)}",
            file=sys.stderr,
        )
        return 1
    print(f"setup-test: getting {', '.join(wanted)} with apt-get …", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # An old list may do; the next line tells
    subprocess.run([*prefix, "apt-get", "update"], **_QUIET, env=environment, check=False)
    if packages and (
        code := subprocess.run(
            [*prefix, *command], **_QUIET, env=environment, check=False
        ).returncode
    ):
        return code
    return _unpack(programs, prefix) if programs else 0


def _unpack(programs: list[str], prefix: list[str]) -> int:
    """Put `programs` into `.tools/` without installing their packages; exit code."""
    TOOLS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TOOLS) as scratch:
        packages = list(dict.fromkeys(_UNPACKED[name] for name in programs))
        if code := subprocess.run(
            ["apt-get", "download", *packages],
            **_QUIET,
            stderr=subprocess.DEVNULL,
            cwd=scratch,
            check=False,
        ).returncode:
            print(
                f"setup-test: {' and '.join(packages)} could not be downloaded with apt-get.",
                file=sys.stderr,
            )
            return code
        for archive in Path(scratch).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(archive), scratch], check=True)
        for name in programs:
            shutil.move(Path(scratch) / "usr" / "bin" / name, TOOLS / name)
        if "prometheus-alertmanager" in programs and not _TEMPLATES.is_dir():
            subprocess.run([*prefix, "mkdir", "-p", str(_TEMPLATES.parent)], check=True)
            subprocess.run(
                [*prefix, "cp", "-r", f"{scratch}{_TEMPLATES}", str(_TEMPLATES)], check=True
            )
    return 0


def _as_root() -> list[str] | None:
    """What to put before a command to run it as root; None when that cannot be had without asking."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if (
        sudo
        and subprocess.run(
            [sudo, "-n", "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False
        ).returncode
        == 0
    ):
        return [sudo, "-n"]
    return None


if __name__ == "__main__":
    sys.exit(main())
