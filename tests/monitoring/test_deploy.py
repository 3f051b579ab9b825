"""The Prometheus rules and the Grafana dashboard speak only of metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
_SUFFIXES = ("_total", "_bucket", "_count", "_sum")


def _exported() -> set[str]:
    """Names in the sources that make them: the gateway's and ours."""
    sources = [ROOT / "monitoring" / "metrics.py", ROOT / "serving" / "gateway" / "metrics.py"]
    return {
        name
        for source in sources
        for name in re.findall(r'\(\s*"(whet_[a-z0-9_]+)"', source.read_text())
    }


def _asked(expression: str) -> set[str]:
    found = set()
    for name in re.findall(r"\bwhet_[a-z0-9_]+", expression):
        for suffix in _SUFFIXES:
            name = name.removesuffix(suffix)
        found.add(name)
    return found


def test_every_metric_in_rules_and_dashboard_is_exported() -> None:
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    board = json.loads((ROOT / "deploy/grafana/whet.json").read_text())
    expressions += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked = set().union(*map(_asked, expressions))
    assert asked <= _exported()
    recorded = {
        rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule
    }
    assert {
        name for expression in expressions for name in re.findall(r"\bwhet:[a-z0-9_:]+", expression)
    } <= recorded


def test_every_alert_says_what_is_so_and_what_to_do() -> None:
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule):
        assert rule["labels"]["severity"] in ("page", "ticket", "information"), rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]
        assert rule["annotations"]["action"], rule["alert"]


def test_the_panels_do_not_overlap() -> None:
    board = json.loads((ROOT / "deploy/grafana/whet.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
