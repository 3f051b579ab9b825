"""Rendered texts: nothing hostile passes, nothing is lost, nothing looks other than it is."""

from __future__ import annotations

import pytest
from selectolax.lexbor import LexborHTMLParser

from tests.hostile_texts import PAYLOADS
from whet.web.rendering import (
    LONGEST_RENDERED,
    coloured_json,
    describe_picture,
    render,
    sanitise,
)

_HARMLESS = frozenset(
    [
        "a", "ol", "td", "th", "p", "span", "div", "pre", "code", "br", "hr", "em", "strong", "s",
        "ul", "li", "blockquote", "table", "thead", "tbody", "tr", "html", "head", "body",
    ]
)  # fmt: skip
_ATTRIBUTES = frozenset({"href", "title", "rel", "target", "start", "class", "tabindex"})

_AROUND = (
    "{}", "**{}**", "- {}", "> {}", "# {}", "| a |\n|---|\n| {} |", "`{}`", "```js\n{}\n```",
    "[{}](https://a.test)", "[a]({})", "![{}]({})", "*a* {} ~~b~~",
)  # fmt: skip


def is_harmless(html: str) -> bool:
    """Whether another parser than the sanitiser's finds nothing that runs, loads or hides."""
    root = LexborHTMLParser(html).root
    assert root is not None
    return all(
        node.tag in _HARMLESS
        and set(node.attributes) <= _ATTRIBUTES
        and (node.attributes.get("href") or "https:").startswith(("http:", "https:", "mailto:"))
        for node in root.traverse()
    )


@pytest.mark.parametrize("around", _AROUND)
def test_no_payload_becomes_more_than_allowed_elements(around: str) -> None:
    for payload in PAYLOADS:
        html = render(around.replace("{}", payload))
        assert is_harmless(html), payload
        assert is_harmless(coloured_json(payload)), payload


@pytest.mark.parametrize(
    "html",
    [
        "<script>x</script>", "<p onclick=x>", "<img src=x>", "<a href='javascript:x'>a</a>",
        "<a href=' JaVaScript:x'>a</a>", "<p style='x'>", "<p id=x>", "<svg><p></p></svg>",
        "<iframe>", "<form>", "<math>", "<p><style>x", "<a href='data:text/html,x'>a</a>",
    ],
)  # fmt: skip
def test_what_is_not_known_is_taken_out(html: str) -> None:
    assert not is_harmless(html)
    assert is_harmless(sanitise(html))


@pytest.mark.parametrize(
    "text",
    [
        "Two lines\nof [1] text, 2 * 3 < 7.", "", "x" * (LONGEST_RENDERED + 1), ">" * 300 + " deep",
        "[a]: https://a.test 'a definition is text'", '{"a": 1, "a": 2}', "[1.10, 1e5]",
        "{not json}", "[[" * 30_000,
    ],
)  # fmt: skip
def test_what_would_be_lost_or_changed_stays_as_its_letters(text: str) -> None:
    assert render(text) == ""


def test_json_is_indented_and_code_is_coloured() -> None:
    assert '<span class="tok-nt">"a"</span>' in render('{"a": [1, "b"]}')
    code = render("```python\nprint(1)\n```")
    assert '<span class="tok-nb">print</span>' in code and "python" in code
    assert "a &lt; b" in render("```nolanguage\na < b\n```")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("https://evil.test/a.png", "Picture at evil.test, not loaded"),
        ("data:image/jpeg;base64," + "A" * 4096, "Picture, JPEG, 3 KiB"),
        ("https://[", "Picture, not loaded"), ("", "Picture, not loaded"),
    ],
)  # fmt: skip
def test_a_picture_is_described_and_never_loaded(address: str, said: str) -> None:
    assert describe_picture(address) == said
    assert "<img" not in render(f"![a]({address}) **b**")
