"""`make setup-clients`: the clients that tests/clients drives against the gateway.

Those for Python go into `.venv-clients`, an environment of their own, because they pin other
versions of what the product uses (`openai` among them); those for Node go beside their drivers.
Does nothing when it is up to date. Without Node the Python clients are set up alone, and the tests
of the others skip.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-clients"
LISTING = ROOT / "requirements" / "clients.txt"
NODE_FOLDER = ROOT / "tests" / "clients"
# What the client `openai` for Node asks for. Debian 12 has 18, so it is not fetched from there.
NODE_MAJOR = 20


def main() -> int:
    return set_up_python() or set_up_node()


def set_up_python() -> int:
    """Make the environment and install the pinned list into it; exit code."""
    stamp, fingerprint = (
        VENV / ".whet-setup",
        f"{_digest(LISTING)} {sys.version_info[0]}.{sys.version_info[1]}\n",
    )
    if stamp.is_file() and stamp.read_text() == fingerprint:
        return 0
    shutil.rmtree(VENV, ignore_errors=True)
    pins = [line for line in LISTING.read_text().splitlines() if line and not line.startswith("#")]
    print(f"setup-clients: installing {len(pins)} pinned packages into {VENV.name} …", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    pip = [
        str(VENV / "bin" / "python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "-qq",
    ]
    if code := subprocess.run(
        [*pip, "install", "--no-deps", "--no-compile", *pins], check=False
    ).returncode:
        print("setup-clients: pip failed; the lines above say why.", file=sys.stderr)
        return code
    stamp.write_text(fingerprint)
    return 0


def set_up_node() -> int:
    """Install the pinned Node clients, or say why they are left out; exit code."""
    if reason := why_no_node():
        print(f"setup-clients: {reason} The tests of the Node clients skip.", file=sys.stderr)
        return 0
    stamp, fingerprint = (
        NODE_FOLDER / "node_modules" / ".whet-setup",
        f"{_digest(NODE_FOLDER / 'package-lock.json')}\n",
    )
    if stamp.is_file() and stamp.read_text() == fingerprint:
        return 0
    print("setup-clients: installing the Node clients with npm …", flush=True)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    if code := subprocess.run(
        command, cwd=NODE_FOLDER, stdin=subprocess.DEVNULL, check=False
    ).returncode:
        print(
            f"setup-clients: npm ci failed (exit code {code}) in {NODE_FOLDER.relative_to(ROOT)}.",
            file=sys.stderr,
        )
        return code
    stamp.write_text(fingerprint)
    return 0


def why_no_node() -> str:
    """A sentence that says what is missing for the Node clients; empty when nothing is."""
    if not (shutil.which("node") and shutil.which("npm")):
        return f"There is no node with npm on this machine; Node {NODE_MAJOR} or newer is needed."
    version = subprocess.run(
        ["node", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    major = re.match(r"v(\d+)", version)
    if major is None or int(major[1]) < NODE_MAJOR:
        return f"Node {NODE_MAJOR} or newer is needed; found {version}."
    return ""


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
