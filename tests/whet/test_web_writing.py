"""How the console looks and writes: contrast in both themes, numbers, shares and times."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.web import NOW
from whet.web import filters, loop_stages


def _themes() -> list[dict[str, str]]:
    """The colour tokens of the stylesheet: light, dark by the system, dark by choice."""
    css = (Path(loop_stages.__file__).parent / "static" / "shell.css").read_text()
    blocks = re.findall(r"(:root[^{]*)\{([^}]*--ground[^}]*)\}", css)
    return [dict(re.findall(r"--([a-z0-9-]+):\s*(#[0-9a-f]{6})", body)) for _, body in blocks]


def _luminance(colour: str) -> float:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, two: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_every_text_colour_has_contrast_aa_on_every_ground_it_stands_on_in_both_themes() -> None:
    themes = _themes()
    assert len(themes) == 3 and themes[1] == themes[2]
    for theme in themes:
        pairs = [
            (ink, ground)
            for ink in ("ink", "ink-2", "ink-3", "accent")
            for ground in ("ground", "surface", "sunk", "hover")
        ]
        pairs += [
            (kind, ground)
            for kind in ("good", "attention", "bad", "information")
            for ground in ("ground", "surface", f"{kind}-soft")
        ]
        pairs += [
            ("accent-ink", "accent"),
            ("ink", "accent-soft"),
            ("ink-2", "attention-soft"),
            ("surface", "bad"),
        ]
        low = {
            pair: round(_contrast(theme[pair[0]], theme[pair[1]]), 2)
            for pair in pairs
            if _contrast(theme[pair[0]], theme[pair[1]]) < 4.5
        }
        assert low == {}
        # Borders of fields and buttons
        assert _contrast(theme["line-strong"], theme["surface"]) >= 3


# --- writing of numbers and times ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (filters.duration(340), "340 ms"),
        (filters.duration(1240), "1.2 s"),
        (filters.duration(31_000), "31 s"),
        (filters.duration(200_000), "3 min 20 s"),
        (filters.duration(7_500_000), "2 h 5 min"),
        (filters.duration(None), "–"),
        (filters.number(12_345), "12,345"),
        (filters.number(0.1234), "0.123"),
        (filters.number(0), "0"),
        (filters.number(2_500_000), "2.5 M"),
        (filters.number(None), "–"),
        (filters.percent(0.965, 1), "96.5 %"),
        (filters.plural(0, "run"), "no runs"),
        (filters.plural(1, "run"), "1 run"),
        (filters.plural(3, "entry", "entries"), "3 entries"),
        (filters.relative(NOW - 3000, NOW), "just now"),
        (filters.relative(NOW - 300_000, NOW), "5 min ago"),
        (filters.relative(NOW + 7_200_000, NOW), "in 2 h"),
        (filters.clip("a  b\nc", 10), "a b c"),
        (filters.clip("abcdef", 4), "abc…"),
        (str(filters.code("run `whet <up>` now")), "run <code>whet &lt;up&gt;</code> now"),
        (str(filters.code("a ` alone <b>")), "a ` alone &lt;b&gt;"),
    ],
)
def test_how_values_are_written(written: str, expected: str) -> None:
    assert written == expected


@pytest.mark.seconds
def test_a_time_carries_its_absolute_form() -> None:
    assert (
        str(filters.ago(NOW, NOW))
        == f'<time datetime="2030-03-17T17:46:40Z" data-at="{NOW}" title="2030-03-17 17:46:40'
        ' UTC">just now</time>'
    )


def test_times_carry_the_moment_that_the_browser_puts_into_its_zone() -> None:
    now = 1_900_000_000_000  # 2030-03-17 17:46:40 UTC
    at = now - 36 * 60_000
    assert filters.since(at, now) == (
        f'<time datetime="2030-03-17T17:10:40Z" data-at="{at}" data-form="since">'
        "since 17:10 UTC (36 min)</time>"
    )
    assert "since 15 Mar 17:46 UTC (2 d)" in filters.since(now - 48 * 3_600_000, now)
    said = filters.local_times("Began 2030-03-17T17:10:40Z & more, since 17:10 UTC.", now, at)
    assert said.count("<time ") == 2 and f'data-at="{at}" data-form="clock"' in said
    assert "&amp; more" in said and said.endswith("</time>.")
    assert filters.local_times("<b> since 9", now) == "&lt;b&gt; since 9"


def test_filters_apply_at_once_on_every_page() -> None:
    """A form of filters has one way to apply them; its button is for browsers without JavaScript."""
    root = Path(loop_stages.__file__).parents[2]
    forms = {
        f"{page.name}: {form[:80]}": form
        for package in ("whet", "serving", "training", "monitoring", "feedback")
        for page in (root / package).rglob("*.html")
        for form in re.findall(r'<form class="filters".*?</form>', page.read_text(), re.S)
        if page.name != "collection.html"  # embeds the question: asked once, when it is written
    }
    assert len(forms) >= 5, "the forms are not where this test looks for them"
    for name, form in forms.items():
        without = re.sub(r"<noscript>.*?</noscript>", "", form, flags=re.S)
        assert "data-auto" in form or "hx-get" in form, f"{name} waits for a button"
        assert "<button" not in without, (
            f"{name} shows a button beside selectors that apply at once"
        )
