"""`make lock`: resolves product.in into the complete lists cpu.txt and gpu.txt, without installing anything.

Present pins are kept unless `--upgrade` is given. The lists name no address: pip looks where it is configured to look.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "requirements"
# The CPU engine declares these for pictures and sound. Their builds beside a CPU torch are CUDA builds, and with them
# in place the import of transformers fails ("operator torchvision::nms does not exist").
LEFT_OUT_ON_CPU = {"torchvision", "torchaudio", "torchcodec"}
NEVER_PINNED = {"pip", "whet", "wheel"}

HEADER = """\
# Complete and pinned: every package that set-up installs on a machine {where}. Made from product.in by `make lock`.
# Installed with --no-deps, so that nothing else comes along.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that product.in allows")
    parser.add_argument("kinds", nargs="*", choices=["cpu", "gpu", []], help="which lists; both when none is named")
    given = parser.parse_args()
    for kind in given.kinds or ["cpu", "gpu"]:
        write(kind, upgrade=given.upgrade)
    return 0


def write(kind: str, *, upgrade: bool) -> None:
    target = FOLDER / f"{kind}.txt"
    found = resolve(kind, keep=None if upgrade or not target.exists() else target)
    where = "without an NVIDIA GPU" if kind == "cpu" else "with an NVIDIA GPU"
    target.write_text(HEADER.format(where=where) + "".join(f"{name}=={version}\n" for name, version in sorted(found.items())))
    print(f"{target.name}: {len(found)} packages")


def resolve(kind: str, *, keep: Path | None) -> dict[str, str]:
    """Name → version of everything that product.in and the engine of this kind ask for."""
    sources = ["-r", str(FOLDER / "product.in"), "-r", str(FOLDER / f"engine-{kind}.in")]
    if keep is not None:
        sources += ["-c", str(keep)]
    environment = dict(os.environ)
    if kind == "gpu":  # a folder of wheels that this machine is configured for may hold a CPU build of torch, which would win
        environment |= {"PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", str(report), *sources]
        subprocess.run(command, check=True, env=environment)
        installs = json.loads(report.read_text())["install"]
    found = {normal(item["metadata"]["name"]): item["metadata"]["version"] for item in installs}
    left_out = NEVER_PINNED | (LEFT_OUT_ON_CPU if kind == "cpu" else set())
    # `2.13.0+cpu` names one build; the list names the version and set-up chooses the build.
    return {name: version.partition("+")[0] for name, version in found.items() if name not in left_out}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
