"""`make setup`: makes .venv and installs the pinned list into it.

Standard library only; does nothing when up to date.

The lists hold every package with its version and are installed without resolving anything, so that
nothing unwanted comes along: torchvision, torchaudio and torchcodec, which the CPU engine declares
and does not need, break the import of transformers next to a CPU build of torch.

No address of a package index is written in this project: pip uses the one it is configured for.
Where that one has no CPU build of torch, WHET_TORCH_INDEX names one that has.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".whet-setup"
# What the commands, the gateway and the engine import: with it most of what is ever used of the
# packages.
_IMPORTED = (
    "whet.cli", "training.runs.pipeline", "training.models.kernels", "transformers.models.llama.modeling_llama", "transformers.generation.utils", "torch.utils.tensorboard",
    "sklearn.metrics", "evidently", "vllm.entrypoints.openai.api_server", "vllm.v1.engine.core",
)  # fmt: skip
# The CPU environment takes 3.3 GiB; what pip unpacks on the way takes room too
NEEDED_BYTES = 8 << 30
NEEDED_BYTES_GPU = 20 << 30
_PIPS = 4  # at once, as far as there are processors; more than two were not measured


def main() -> int:
    began = time.monotonic()
    listing = ROOT / "requirements" / ("gpu.txt" if has_nvidia_gpu() else "cpu.txt")
    fingerprint = stamp_of(listing)
    if STAMP.is_file() and STAMP.read_text() == fingerprint and venv_python().exists():
        return 0
    say(
        f"Setting up in {VENV} from"
        f" requirements/{listing.name} ({'an NVIDIA GPU was found' if listing.name == 'gpu.txt' else 'no NVIDIA GPU was found'})."
    )
    check_space(NEEDED_BYTES_GPU if listing.name == "gpu.txt" else NEEDED_BYTES)
    make_venv()
    wanted = pins(listing)
    if listing.name == "cpu.txt":
        torch = next(pin for pin in wanted if pin.startswith("torch=="))
        install_cpu_torch(torch)
        wanted.remove(torch)
    say(f"Installing {len(wanted)} pinned packages; downloads are kept in pip's cache …")
    install_all(wanted)
    say("Installing Whet itself …")
    pip("install", "--no-deps", "--no-build-isolation", "-e", str(ROOT))
    # Left by the build: Python started in this folder would read our entry points from here, and it
    # goes stale.
    shutil.rmtree(ROOT / "whet.egg-info", ignore_errors=True)
    check_imports()
    STAMP.write_text(fingerprint)
    say(f"Set up in {time.monotonic() - began:.0f} s.")
    return 0


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def fail(text: str) -> NoReturn:
    print(f"setup: {text}", file=sys.stderr, flush=True)
    sys.exit(1)


def has_nvidia_gpu() -> bool:
    """A driver that sees a card; WHET_SETUP=cpu or =gpu decides otherwise."""
    wanted = os.environ.get("WHET_SETUP", "")
    if wanted in ("cpu", "gpu"):
        return wanted == "gpu"
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return True
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False)
    return listed.returncode == 0 and "GPU 0" in listed.stdout


def stamp_of(listing: Path) -> str:
    """Changes when the list, our own metadata (entry points) or the Python changes."""
    digest = hashlib.sha256(listing.read_bytes() + (ROOT / "pyproject.toml").read_bytes())
    return f"{listing.name} {digest.hexdigest()} {sys.version_info[0]}.{sys.version_info[1]}\n"


def pins(listing: Path) -> list[str]:
    return [
        line.strip()
        for line in listing.read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]


def venv_python() -> Path:
    return VENV / "bin" / "python"


def check_space(needed: int) -> None:
    free = shutil.disk_usage(ROOT).free
    if free < needed:
        fail(
            f"{free / 2**30:.1f} GiB are free on the disk of {ROOT}; set-up needs"
            f" {needed / 2**30:.0f} GiB. Free space and run `make setup` again."
        )


def make_venv() -> None:
    """A new environment, or the present one if it is of this Python."""
    if venv_python().exists():
        found = subprocess.run(
            [venv_python(), "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if found.stdout.split() == [str(part) for part in sys.version_info[:2]]:
            return
        say("The present .venv is of another Python or broken; making a new one.")
        shutil.rmtree(VENV)
    say(f"Making .venv with Python {sys.version.split()[0]} …")
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)


def pip(*arguments: str, capture: bool = False) -> str:
    """Run pip in the environment; what it printed where that is captured.

    Ends the set-up with what pip said when it fails.
    """
    done = subprocess.run(
        pip_command(*arguments), stdout=subprocess.PIPE if capture else None, text=True, check=False
    )
    if done.returncode != 0:
        failed(arguments[0], done.returncode)
    return done.stdout or ""


def pip_command(*arguments: str) -> list[str]:
    # -qq: errors only; what a machine's own pip settings make it warn of is not ours.
    return [
        str(venv_python()),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        *arguments,
        "-qq",
    ]


def failed(verb: str, code: int) -> NoReturn:
    fail(
        f"pip {verb} failed (exit code {code}); the lines above say why. Run `make setup` again"
        " when it is cured: what was downloaded is kept."
    )


def install_all(wanted: list[str]) -> None:
    """Install packages without resolving, in no particular order. pip unpacks one after another on
    one processor, so several of it take a share each.
    """
    count = min(_PIPS, os.cpu_count() or 1)
    # Python compiles a module when it is first imported; compiling all 45,000 beforehand took half
    # of the set-up's time.
    running = [
        subprocess.Popen(
            pip_command("install", "--no-deps", "--no-compile", *wanted[number::count])
        )
        for number in range(count)
    ]
    if code := max(abs(each.wait()) for each in running):
        failed("install", code)


def installed_torch() -> str:
    """The version of torch in the environment with its build, such as `2.13.0+cpu`; '' when there
    is none or it cannot be imported.
    """
    code = "import torch; print(torch.__version__)"
    found = subprocess.run([venv_python(), "-c", code], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def install_cpu_torch(pin: str) -> None:
    """Install torch from what pip finds; where that is a CUDA build, from WHET_TORCH_INDEX; else
    the CUDA build, and say so.
    """
    if installed_torch().split("+")[0] == pin.split("==")[1]:
        return
    index = os.environ.get("WHET_TORCH_INDEX", "")
    source = ["--index-url", index] if index else []
    report = json.loads(
        pip(
            "install",
            "--dry-run",
            "--no-deps",
            "--ignore-installed",
            "--report",
            "-",
            *source,
            pin,
            capture=True,
        )
    )
    version = report["install"][0]["metadata"]["version"]
    small = version.endswith("+cpu") or sys.platform == "darwin"
    if small:
        say(
            "Installing torch"
            f" {version} ({'from WHET_TORCH_INDEX' if index else 'from the index that pip uses'}) …"
        )
        pip("install", "--no-deps", "--no-compile", *source, pin)
        return
    say(
        f"pip's index offers torch {version}, a build for NVIDIA GPUs: about 3 GB with its"
        " libraries, which this machine without a GPU would not use. It works, and is being"
        " installed. For the small build, stop here and run again with WHET_TORCH_INDEX set to the"
        " address of PyTorch's CPU package index, which PyTorch's own 'Get started' page names"
        " when you choose Pip and CPU."
    )
    pip("install", *source, pin)


def check_imports() -> None:
    """The mistakes that a wrong mixture of builds shows at once.

    What is imported is compiled and kept, whatever the environment says about that: every process
    of ours would compile it again, ten seconds each.
    """
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env |= {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [venv_python(), "-c", f"import {', '.join(_IMPORTED)}"],
        capture_output=True,
        text=True,
        check=False,
        env=env,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        fail(
            f"The environment is complete but does not work: {last}. Run `make clean setup`; if"
            " that does not help, this is a defect."
        )


if __name__ == "__main__":
    sys.exit(main())
