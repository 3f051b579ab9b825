"""Planted faults are named, controls are not blamed: 12 of each, by scripted engines."""

from __future__ import annotations

from benchmarks.blame.planted import DETAILS
from benchmarks.blame.scoring import is_named_right, score
from benchmarks.blame.scripted import ScriptedEngine
from benchmarks.blame.scripted_cases import behaviours, choose_missing, plant
from benchmarks.blame.shops import MemoryShop
from benchmarks.blame.worlds import World
from serving.blame.matrix import run_matrix


def test_planted_faults_are_named_and_controls_are_not_blamed() -> None:
    world = World(19, "unseen")
    missing = choose_missing(world, 2)
    shop = MemoryShop(world, [fact for fact in world.facts if fact not in missing])
    engine = ScriptedEngine(world, behaviours(world))
    found = []
    for planted in plant(world, shop, engine, missing, per_fault=2, per_control=6):
        report = run_matrix(planted.case, engine, shop.search, shop.resolve)
        found.append((planted.kind, report.verdict))
        assert is_named_right(planted.kind, report.verdict), (planted, report.verdict)
        if planted.kind in DETAILS:
            assert report.verdict.detail == DETAILS[planted.kind]
    counted = score(found)
    assert (counted["faults"], counted["controls"]) == (12, 12)
    assert (counted["named_right"], counted["controls_blamed"]) == (12, 0)
