"""Renders what models and people said: Markdown, code with highlighting, tables, JSON, pictures.

Every text is hostile. markdown-it-py escapes HTML and finds no scheme but those of `_SCHEMES`,
pictures become placeholders, and nh3 takes out of the result whatever is not of `_ALLOWED`. The
page's content security policy stands behind both.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup, escape
from pygments import highlight as run_lexer
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from whet.conversation import other_parts_of, plain_text_of, text_of
from whet.json_types import Json

LONGEST_RENDERED = 50_000  # characters; longer ones are logs or documents, and stay text
_LONGEST_HIGHLIGHTED = 20_000  # characters; some lexers take a second for more
_SCHEMES = frozenset({"http", "https", "mailto"})
_PLAIN_BLOCKS = frozenset({"paragraph_open", "paragraph_close", "inline"})
_PLAIN_INLINE = frozenset({"text", "softbreak", "hardbreak"})
_ALLOWED: dict[str, set[str]] = {
    "a": {"href", "title", "rel", "target"},
    "ol": {"start"},
    "td": {"class"},
    "th": {"class"},
    **{tag: {"class"} for tag in ("p", "span")},
    **{tag: {"class", "tabindex"} for tag in ("div", "pre", "code")},
    **{
        tag: set()
        for tag in ("br", "hr", "em", "strong", "s", "ul", "li", "blockquote", "table", "thead",
                    "tbody", "tr")
    },
}  # fmt: skip
_ALIGNMENT = re.compile(r"text-align:(left|center|right)")
_STRING_OR_SPACE = re.compile(r'("(?:[^"\\]|\\.)*")|\s+')
_DATA_URL = re.compile(r"data:image/([a-z0-9.+-]+)(?:;[a-z0-9=-]+)*;base64,(.*)", re.DOTALL | re.I)


def render(text: str) -> Markup:
    """Return the text as HTML, or nothing where plain text says the same.

    JSON is indented and coloured; everything else is read as Markdown. A text that is too long
    gives nothing too.
    """
    return _render(text) if 0 < len(text) <= LONGEST_RENDERED else Markup()


@lru_cache(maxsize=256)
def _render(text: str) -> Markup:
    if (indented := indented_json(text)) is not None:
        return code_block(indented, "json")
    tokens = _MARKDOWN.parse(text)
    if all(_is_plain(token) for token in tokens) or _is_too_deep(tokens):
        return Markup()
    return sanitise(str(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})))


def sanitise(html: str) -> Markup:
    """Return HTML without what is not of `_ALLOWED`, and without links that run something."""
    return Markup(
        nh3.clean(
            html,
            tags=set(_ALLOWED),
            attributes=_ALLOWED,
            url_schemes=set(_SCHEMES),
            link_rel=None,  # the renderer's own
        )
    )


def is_linkable(address: str) -> bool:
    """Whether an address may be a link: nothing that runs, and nothing of this console."""
    try:
        return urlsplit(address).scheme.lower() in _SCHEMES
    except ValueError:
        return False


def indented_json(text: str) -> str | None:
    """Return a JSON object or list with indents; None for any other text.

    Also None where a key occurs twice or a number or an escape would be written otherwise: nothing
    may look other than it is.
    """
    stripped = text.strip()
    if not (stripped.startswith(("{", "[")) and stripped.endswith(("}", "]"))):
        return None
    try:
        indented = json.dumps(json.loads(stripped), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return None
    return indented if _without_space(indented) == _without_space(stripped) else None


def _without_space(text: str) -> str:
    return _STRING_OR_SPACE.sub(lambda found: found[1] or "", text)


def coloured_json(text: str) -> Markup:
    """Return arguments or a result of a tool: JSON indented and coloured, anything else as text."""
    indented = indented_json(text)
    return _block(text, "") if indented is None else _block(indented, "json")


def code_block(code: str, language: str = "") -> Markup:
    """Return code as a block, coloured where the language is known and the code is not too long."""
    name = language.split(maxsplit=1)[0] if language.split() else ""
    label = Markup('<p class="md-language">{}</p>').format(name[:40]) if name else Markup()
    return label + _block(code, name)


def _block(code: str, language: str) -> Markup:
    return Markup('<pre class="md-code" tabindex="0"><code>{}</code></pre>').format(
        _highlight(code, language)
    )


def _highlight(code: str, language: str) -> Markup:
    if not language or len(code) > _LONGEST_HIGHLIGHTED:
        return escape(code)
    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return escape(code)
    return Markup(run_lexer(code, lexer, _FORMATTER))


def describe_pictures(parts: Any) -> list[str]:
    """Return what stands for each part of a message that is not text, such as a picture's size."""
    if not isinstance(parts, list):
        return []
    if not any(isinstance(part, Mapping) for part in parts):
        return other_parts_of(parts)  # token ids
    others = (part for part in parts if isinstance(part, Mapping) and "text" not in part)
    return [_describe_part(part) for part in others]


def plain_text(parts: Any) -> str:
    """Return the text of a message's content, whatever a client sent as that."""
    return plain_text_of(parts) or ("" if isinstance(parts, list) else text_of(parts))


def _describe_part(part: Mapping[str, Json]) -> str:
    kind = str(part.get("type") or "part")
    address = part.get("image_url")
    if isinstance(address, Mapping):
        address = address.get("url")
    if not isinstance(address, str):
        return f"{kind.replace('_', ' ')[:40]}, not shown"
    return describe_picture(address)


def describe_picture(address: str) -> str:
    """Return a picture's format and size, or where it lies; it is never loaded."""
    found = _DATA_URL.match(address)
    if found is None:
        try:
            host = urlsplit(address).hostname
        except ValueError:
            host = None
        return f"Picture at {host}, not loaded" if host else "Picture, not loaded"
    size = len(found[2]) * 3 // 4
    amount = f"{size / 1024:.0f} KiB" if size >= 1024 else f"{size} bytes"
    pixels = _png_pixels(found[2])
    return f"Picture, {found[1].upper()}{f', {pixels}' if pixels else ''}, {amount}"


def _png_pixels(encoded: str) -> str:
    try:
        head = base64.b64decode(encoded[:32], validate=True)
    except (binascii.Error, ValueError):
        return ""
    if len(head) < 24 or not head.startswith(b"\x89PNG\r\n\x1a\n"):
        return ""
    width, height = struct.unpack(">II", head[16:24])
    return f"{width} × {height}"


# --- Markdown ---------------------------------------------------------------------------------


def _is_plain(token: Token) -> bool:
    inline = token.children or []
    return token.type in _PLAIN_BLOCKS and all(one.type in _PLAIN_INLINE for one in inline)


def _is_too_deep(tokens: Sequence[Token]) -> bool:
    """Whether the parser reached its deepest level, below which it drops the text."""
    levels = (max((token.level, *(one.level for one in token.children or ()))) for token in tokens)
    deepest: int = _MARKDOWN.options["maxNesting"]
    return max(levels, default=0) >= deepest - 1


def _fence(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    return str(code_block(tokens[index].content, tokens[index].info))


def _image(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    token = tokens[index]
    said = f"{token.content}: " if token.content else ""
    what = describe_picture(str(token.attrs.get("src") or ""))
    return str(Markup('<span class="md-picture">{}{}</span>').format(said, what))


def _heading_open(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    # A heading of an answer is none of the page's.
    return f'<p class="md-heading md-{tokens[index].tag}">'


def _link_open(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    address = str(tokens[index].attrs.get("href") or "")
    return str(
        Markup('<a href="{0}" title="{0}" rel="noopener noreferrer nofollow" target="_blank">')
    ).replace("{0}", str(escape(address)))


def _cell_open(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    token = tokens[index]
    aligned = _ALIGNMENT.match(str(token.attrs.get("style") or ""))
    return f'<{token.tag} class="md-{aligned[1]}">' if aligned else f"<{token.tag}>"


def _markdown() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "breaks": True})
    made.enable(["table", "strikethrough"])
    made.disable("reference")  # a definition would be a text that nobody sees
    made.validateLink = lambda url: is_linkable(url) or bool(_DATA_URL.match(url))  # type: ignore[method-assign]
    rules = {
        "fence": _fence, "code_block": _fence, "image": _image, "heading_open": _heading_open,
        "heading_close": lambda *_: "</p>\n", "link_open": _link_open,
        "th_open": _cell_open, "td_open": _cell_open,
        "table_open": lambda *_: '<div class="md-table" tabindex="0"><table>\n',
        "table_close": lambda *_: "</table></div>\n",
    }  # fmt: skip
    for name, rule in rules.items():
        made.add_render_rule(name, rule)
    return made


_FORMATTER = HtmlFormatter(nowrap=True, classprefix="tok-")
_MARKDOWN = _markdown()
