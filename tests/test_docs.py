"""The documentation says what is there, and the repository names nothing of the machine or the
network it was made on.
"""

from __future__ import annotations

import re
import subprocess
import sysconfig
from importlib import metadata, util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = (
    "whet",
    "serving",
    "training",
    "monitoring",
    "feedback",
    "tests",
    "deploy",
    "benchmarks",
    "examples",
    "docs",
    "scripts",
    "requirements",
)


def tracked() -> list[Path]:
    """Files that belong to the project, text or not: those of git, or everything but the usual
    leavings in an unpacked archive.
    """
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode == 0:
        return [path for line in done.stdout.splitlines() if (path := ROOT / line).is_file()]
    left_out = {".venv", ".whet", "__pycache__", ".git", "build", "dist"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not left_out & set(path.parts)]


def script(name: str) -> ModuleType:
    spec = util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return script("reference")


@pytest.fixture(scope="module")
def known_commands(reference: ModuleType) -> set[str]:
    import typer

    from whet.cli import app

    return {name for name, _ in reference.command_tree(typer.main.get_command(app))}


# --- what is documented is what there is ---------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["settings.md", "commands.md", "routes.md", "metrics.md"])
def test_the_reference_pages_are_what_the_code_says(reference: ModuleType, page: str) -> None:
    assert (ROOT / "docs" / page).read_text() == reference.PAGES[page](), "run `make docs`"


def test_generated_parts_of_pages_are_what_the_code_says(reference: ModuleType) -> None:
    for page in {page for page, _, _ in reference.SECTIONS}:
        assert (ROOT / "docs" / page).read_text() == reference.with_sections(page), (
            "run `make docs`"
        )


def test_every_setting_says_what_it_is() -> None:
    from whet.settings import Settings

    assert not [
        name for name, field in Settings.model_fields.items() if len(field.description or "") < 10
    ]


def test_every_command_says_what_it_does(reference: ModuleType) -> None:
    import typer

    from whet.cli import app

    silent = [
        name
        for name, command in reference.command_tree(typer.main.get_command(app))
        if not command.help or "not installed" in command.help
    ]
    assert not silent


def code_of(page: Path) -> str:
    """Code blocks and code spans of a page, one per line."""
    text = page.read_text()
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.M | re.S)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return "\n".join(blocks + spans)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_and_target_on_a_page_exists(page: Path, known_commands: set[str]) -> None:
    code = code_of(page)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert not set(re.findall(r"^make ([a-z-]+)", code, re.M)) - targets
    groups = {name.split()[1] for name in known_commands}
    for call in re.findall(r"^(?:\.venv/bin/)?(whet [a-z]+(?: [a-z][a-z-]*)?)", code, re.M):
        words = call.split()
        assert words[1] in groups, call
        subcommands = {
            name.split()[2] for name in known_commands if name.startswith(f"whet {words[1]} ")
        }
        if subcommands and len(words) == 3:
            assert words[2] in subcommands, call


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_on_a_page_exists(page: Path) -> None:
    missing = [
        target
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    for span in re.findall(r"`([^`\n]+)`", page.read_text()):
        path = span.split(":")[0].rstrip("/")
        inside = path.split("/")[0] in FOLDERS and "/" in span
        if inside and re.fullmatch(r"[A-Za-z0-9_./-]+", path) and not (ROOT / path).exists():
            missing.append(span)
    assert not missing


def test_the_map_in_the_readme_names_every_folder() -> None:
    mapped = set(re.findall(r"^\| `([^`]+)` \|", (ROOT / "README.md").read_text(), re.M))
    folders = {
        path.relative_to(ROOT).parts[0] + "/"
        for path in tracked()
        if len(path.relative_to(ROOT).parts) > 1
    }
    assert {folder for folder in folders if not folder.startswith(".")} <= mapped
    assert not [name for name in mapped if not (ROOT / name).exists()]


# --- nothing of the place it was made in ----------------------------------------------------------------------------


@pytest.mark.seconds
def test_no_file_names_a_package_index_or_a_folder_of_this_machine() -> None:
    # Put together here, so that this file does not name them either.
    hosts = [
        "pypi" + ".org",
        "python" + "hosted",
        "download.py" + "torch.org",
        "registry.npm" + "js",
        "deb.de" + "bian.org",
        "index-url" + "=http",
        "proxy.gol" + "ang",
    ]
    folders = [
        "/ro" + "ot/",
        "/wo" + "rk/",
        "/ho" + "me/[a-z]",
        "/opt/wh" + "eels",
        "/opt/py" + "pi",
    ]
    forbidden = re.compile(
        "|".join(
            [re.escape(host) for host in hosts]
            + [rf"(?<![\w.$}}~-]){folder}" for folder in folders]
        )
    )
    found = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in forbidden.finditer(text)]
    assert not found


# --- the pinned lists -----------------------------------------------------------------------------------------------


def pins(kind: str) -> dict[str, str]:
    lines = [
        line
        for line in (ROOT / "requirements" / f"{kind}.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    found = [re.fullmatch(r"([a-z0-9-]+)==([0-9A-Za-z.!]+)", line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    return {match[1]: match[2] for match in found if match}


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_a_list_pins_each_package_once_and_everything_that_is_asked_for(kind: str) -> None:
    lock = script("lock")
    found = pins(kind)
    lines = [
        line
        for line in (ROOT / "requirements" / f"{kind}.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert len(lines) == len(found)
    for name in lock.BESIDE:
        assert not set(pins(name)) & set(found), (
            f"what `make setup-{name}` installs beside a list changes nothing of it"
        )
    for source in ("product.in", f"engine-{kind}.in"):
        asked = re.findall(
            r"^([A-Za-z0-9._-]+)", (ROOT / "requirements" / source).read_text(), re.M
        )
        assert {lock.normal(name) for name in asked} <= set(found)


def test_the_cpu_list_leaves_out_what_breaks_transformers() -> None:
    assert not {"torchvision", "torchaudio", "torchcodec"} & set(pins("cpu"))


def test_what_is_installed_is_what_is_pinned() -> None:
    lock = script("lock")
    # Of the environment itself: other tests' imports put packages inside of packages on the path.
    installed = {
        lock.normal(each.metadata["Name"]): each.version.partition("+")[0]
        for each in metadata.distributions(path=[sysconfig.get_path("purelib")])
    }
    found = pins("gpu" if "vllm" in installed else "cpu")
    # Which are installed where somebody wants them
    known = found | {
        package: version for name in lock.BESIDE for package, version in pins(name).items()
    }
    assert {
        name: version
        for name, version in installed.items()
        if name not in lock.NEVER_PINNED | {"setuptools"} and known.get(name) != version
    } == {}
    assert set(found) <= set(installed)


def wide_prose(text: str) -> list[str]:
    """Lines above 100 columns that could be broken: no table, no code, nothing generated."""
    found, is_code, is_generated = [], False, False
    for line in text.split("\n"):
        stripped = line.strip()
        if stripped.startswith("```"):
            is_code = not is_code
        if stripped.startswith("<!--"):
            is_generated = "end" not in stripped
        is_indented_code = line.startswith("    ") and " " in stripped and "- " not in stripped[:2]
        if is_code or is_generated or stripped.startswith(("|", "#", "<")) or is_indented_code:
            continue
        whole_spans = re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", "_"), stripped)
        if len(line) > 100 and " " in whole_spans[: 100 - len(line) + len(stripped)]:
            found.append(line)
    return found


@pytest.mark.parametrize("path", [p for p in tracked() if p.suffix == ".md"], ids=str)
def test_prose_is_wrapped_at_100_columns(path: Path) -> None:
    assert not wide_prose(path.read_text(encoding="utf-8")), "wrap it; a diff shows one sentence"


def test_wide_prose_is_found() -> None:
    wide = "word " * 25
    assert wide_prose(f"{wide}\n- {wide}") == [wide, f"- {wide}"]
    assert not wide_prose(f"| {wide} |\n```\n{wide}\n```\n" + "x" * 120)
