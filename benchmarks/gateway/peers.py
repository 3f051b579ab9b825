"""Environments of their own for the peers, from complete pinned lists, kept in a cache folder."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError

_LISTS = Path(__file__).parent / "peers"


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    version: str  # as pinned in peers/<name>.txt
    command: str  # in the environment's bin folder


PEERS = {
    "litellm": Peer("litellm", "1.109.0", "litellm"),
    "vllm-router": Peer("vllm-router", "0.1.17", "vllm-router"),
}


def prepare(peer: Peer, cache: Path) -> Path:
    """The peer's command, installed when it is not there yet (LiteLLM takes about a minute and 1
    GB). Raises BenchmarkError.
    """
    packages = _LISTS / f"{peer.name}.txt"
    folder = cache / f"{peer.name}-{peer.version}"
    # Holds the digest of the list, so that a half-made or outdated environment is made anew
    marker = folder / "installed"
    digest = hashlib.sha256(packages.read_bytes()).hexdigest()
    if not marker.is_file() or marker.read_text() != digest:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        print(f"installing {peer.name} {peer.version} into {folder}", flush=True)
        _run([sys.executable, "-m", "venv", str(folder)], peer)
        # The list is complete; --no-deps keeps it so.
        _run(
            [
                str(folder / "bin" / "pip"),
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                "-r",
                str(packages),
            ],
            peer,
        )
        marker.write_text(digest)
    return folder / "bin" / peer.command


def _run(command: list[str], peer: Peer) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(
            f"The environment of {peer.name} could not be made: {done.stderr.strip()[-400:]}",
            hint=(
                "Check that pip reaches a package index, or leave it out: --arms direct,whet"
                f" without {peer.name}."
            ),
        )
