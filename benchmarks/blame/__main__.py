"""`python -m benchmarks.blame [scripted] [real]`: plant faults, run the matrix, write the tables."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.blame import real_cases, scripted_cases
from benchmarks.blame.figures import BEGIN, END, tables
from benchmarks.blame.planted import Planted
from benchmarks.blame.scoring import is_named_right, score
from benchmarks.blame.scripted import ScriptedEngine
from benchmarks.blame.shops import IndexedShop
from benchmarks.blame.worlds import World
from benchmarks.document import put_between_markers
from serving.blame.matrix import Asker, run_matrix
from serving.blame.records import Verdict

PARTS = ("scripted", "real")
_HERE = Path(__file__).parent
_RESULTS = _HERE / "results" / "results.json"
# The rules were tuned on the templates `tuning` with seed 1; these are reported.
_SEED = 2026


@dataclass(frozen=True)
class Size:
    """How many cases of each kind, in how large a world."""

    per_fault: int = 20
    per_control: int = 50
    products: int = 60  # 360 facts: enough that each kind occurs often enough
    stale: int = 40  # facts that an adapter learns an old value of
    refused: int = 100  # facts whose questions another one learns to send away


SMALL = Size(per_fault=6, per_control=10, products=20, stale=12, refused=20)


def main(given: list[str]) -> int:
    """0: done; 1: fewer faults were named, or more controls blamed, than the aim."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blame", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--seed", type=int, default=_SEED)
    parser.add_argument(
        "--tuning", action="store_true", help="the templates that rules were tuned on"
    )
    parser.add_argument("--small", action="store_true", help="a first look, a fifth as long")
    options = parser.parse_args(given)
    size = SMALL if options.small else Size()
    templates = "tuning" if options.tuning else "unseen"
    is_good = True
    for part in options.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            measure = _measure_real if part == "real" else _measure_scripted
            world = World(options.seed, templates, size.products)
            result = measure(world, Path(folder), size) | _stamp(options.seed, templates)
        is_good = is_good and _is_good(result)
        if not options.tuning:
            _record(part, result)
        sys.stdout.write(json.dumps({k: v for k, v in result.items() if k != "wrong"}) + "\n")
    return 0 if is_good else 1


def _measure_scripted(world: World, folder: Path, size: Size) -> dict[str, Any]:
    missing = scripted_cases.choose_missing(world, size.per_fault)
    shop = IndexedShop(world, [fact for fact in world.facts if fact not in missing], folder)
    engine = ScriptedEngine(world, scripted_cases.behaviours(world))
    cases = scripted_cases.plant(
        world,
        shop,
        engine,
        missing,
        per_fault=size.per_fault,
        per_control=size.per_control,
    )
    result = _judge(list(cases), engine, shop)
    shop.close()
    return result


def _measure_real(world: World, folder: Path, size: Size) -> dict[str, Any]:
    # Torch and transformers take seconds to load, for which the scripted part need not wait.
    from training.imports import quiet_environment

    quiet_environment()
    from benchmarks.blame.models import Versions
    from training.models.base_model import BaseModel
    from whet.settings import BUILTIN_BASE

    missing = world.rng.sample(world.facts, size.per_fault)
    shop = IndexedShop(world, [fact for fact in world.facts if fact not in missing], folder)
    versions = Versions(BaseModel(BUILTIN_BASE, "the built-in base"), world.rng.randrange(10**6))
    real = real_cases.RealWorld(world, shop, versions)
    known = [fact for fact in world.facts if fact not in set(missing)]
    stale = {fact: world.another_value(fact) for fact in world.rng.sample(known, size.stale)}
    versions.train(real_cases.STALE, real_cases.stale_rows(real, stale))
    refused = world.rng.sample(known, size.refused)
    versions.train(real_cases.REFUSER, real_cases.refusal_rows(real, refused))
    sys.stderr.write(f"{time.process_time():.0f} s of processor time: trained\n")
    cases = list(
        real_cases.plant(
            real, missing, stale, per_fault=size.per_fault, controls=2 * size.per_control
        )
    )
    sys.stderr.write(f"{time.process_time():.0f} s of processor time: {len(cases)} cases\n")
    result = _judge(cases, versions, shop) | {"trained": versions.trained}
    shop.close()
    return result


def _judge(cases: list[Planted], ask: Asker, shop: IndexedShop) -> dict[str, Any]:
    asked = 0

    def count(model: str, route: str, body: dict[str, Any]) -> str:
        nonlocal asked
        asked += 1
        return ask(model, route, body)

    found: list[tuple[str, Verdict]] = []
    wrong = []
    started = time.process_time()
    for planted in cases:
        report = run_matrix(planted.case, count, shop.search, shop.resolve)
        found.append((planted.kind, report.verdict))
        if not is_named_right(planted.kind, report.verdict):
            wrong.append(_describe(planted, report.verdict))
    return score(found) | {
        "answers_per_case": round(asked / max(1, len(cases)), 1),
        "processor_s": round(time.process_time() - started, 1),
        "wrong": wrong,
    }


def _describe(planted: Planted, verdict: Verdict) -> dict[str, str]:
    review = planted.case.review
    return {
        "planted": planted.kind,
        "question": planted.case.question,
        "logged": planted.case.logged,
        "reviewed": review.answer if review else "",
        "named": f"{verdict.fault.value} ({verdict.detail})",
        "reason": verdict.reason,
    }


def _is_good(result: dict[str, Any]) -> bool:
    right = result["named_right"] >= 0.9 * result["faults"]
    return bool(right and result["controls_blamed"] <= 0.03 * result["controls"])


def _stamp(seed: int, templates: str) -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).strftime("%Y-%m-%d"),
        "seed": seed,
        "templates": templates,
        "load": round(os.getloadavg()[0], 1),
    }


def _record(part: str, measured: dict[str, Any]) -> None:
    results = json.loads(_RESULTS.read_text()) if _RESULTS.is_file() else {}
    results[part] = measured
    _RESULTS.parent.mkdir(exist_ok=True)
    _RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    document = _HERE / "README.md"
    document.write_text(put_between_markers(document.read_text(), tables(results), BEGIN, END))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
