"""Reads HTML: the page's own text, without navigation and without what a browser does not show."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from serving.retrieval.parsing.blocks import Block, Kind, ParsedDocument
from serving.retrieval.parsing.html_visibility import has_class, is_furniture, is_hidden, names
from serving.retrieval.parsing.texts import NoticeCounter, clean, one_line, paragraph

MEDIA_TYPE = "text/html"
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCK_TAGS = names(
    "address article aside blockquote body caption center dd details dialog div dl dt fieldset "
    "figcaption figure footer form header hr legend li main menu ol p section summary ul"
)
_CELL_TAGS = frozenset(("tr", "td", "th"))  # of tables that lay out a page
_CONTAINERS = _BLOCK_TAGS | _CELL_TAGS
_ADMONITIONS = names("admonition caution important note tip warning")
# Where the page's own text stands, most certain first; the last one is Sphinx's.
_ROOTS = ("main", "[role=main]", "article", "div.document div.body")
_LEAST_SHARE = 0.2  # of the page's text; a root with less is no root
_WHITE_SPACE = re.compile(r"\s+")


def parse_html(text: str, *, counter: NoticeCounter, is_page: bool = True) -> ParsedDocument:
    """Read HTML. `is_page` false: all of it is content (it was made from Markdown)."""
    tree = LexborHTMLParser(text)
    body = tree.body
    if body is None:
        return ParsedDocument(title="", media_type=MEDIA_TYPE, blocks=[])
    root = _content_root(body) if is_page else body
    blocks = _Reader(counter, is_page).read(root)
    if is_page and not any(block.kind is not Kind.HEADING for block in blocks):
        # A page of nothing but navigation, such as a table of contents: that is its text then.
        counter = NoticeCounter()
        blocks = _Reader(counter, is_page=False).read(root)
    return ParsedDocument(
        title=_title(tree, blocks, counter),
        media_type=MEDIA_TYPE,
        language=_language(tree),
        blocks=blocks,
        notices=counter.notices(),
    )


def _content_root(body: LexborNode) -> LexborNode:
    least = len(body.text()) * _LEAST_SHARE
    for selector in _ROOTS:
        found = body.css(selector)
        if len(found) == 1 and len(found[0].text()) >= least:
            return found[0]
    return body


def _title(tree: LexborHTMLParser, blocks: list[Block], counter: NoticeCounter) -> str:
    """Return the only first-level heading, else the page's <title>, else the first heading."""
    headings = [block for block in blocks if block.kind is Kind.HEADING]
    first_level = [block.text for block in headings if block.level == 1]
    if len(first_level) == 1:
        return first_level[0]
    element = tree.head.css_first("title") if tree.head is not None else None
    told = one_line(clean(element.text(), counter)) if element is not None else ""
    return told or (headings[0].text if headings else "")


def _language(tree: LexborHTMLParser) -> str:
    root = tree.root
    declared = (root.attributes.get("lang") or "") if root is not None else ""
    code = re.match(r"[a-z]{2}(?![a-z])", declared.strip().lower())
    return code.group() if code else ""


class _Reader:
    """Walks a tree without recursion and gathers its blocks."""

    def __init__(self, counter: NoticeCounter, is_page: bool) -> None:
        self._counter = counter
        self._is_page = is_page
        self._blocks: list[Block] = []
        self._text: list[str] = []  # of the block that is being read
        self._open: list[tuple[Kind, int]] = [(Kind.PARAGRAPH, 0)]  # what the text belongs to

    def read(self, root: LexborNode) -> list[Block]:
        """Return the blocks under `root`."""
        for node, is_end in _walk(root, self._is_left_out):
            if node.is_text_node:
                # Line breaks of the source mean nothing; that of a <br> is added below.
                self._text.append(_WHITE_SPACE.sub(" ", node.text_content or ""))
            elif is_end:
                self._leave(node)
            else:
                self._enter(node)
        self._flush()
        return self._blocks

    def _is_left_out(self, node: LexborNode) -> bool:
        if node.is_text_node:
            return False
        if node.tag == "pre":
            self._add_code(node)
            return True
        if node.tag == "table" and _is_data(node):
            self._add_table(node)
            return True
        return self._is_unread(node)

    def _is_unread(self, node: LexborNode) -> bool:
        if not node.is_element_node or is_furniture(node, self._is_page):
            return True
        if is_hidden(node):
            if one_line(node.text()):
                self._counter.add("hidden_text")
            return True
        return False

    def _enter(self, node: LexborNode) -> None:
        tag = node.tag or ""
        if tag == "br":
            self._text.append("\n")
        elif tag in _HEADINGS:
            self._flush()
            # "Note" above a note is no section of the page.
            is_label = node.parent is not None and has_class(node.parent, _ADMONITIONS)
            kind = Kind.TERM if is_label else Kind.HEADING
            self._open.append((kind, 0 if is_label else _HEADINGS[tag]))
        elif tag in _CONTAINERS:
            self._flush()
            self._open.append((self._kind_in(tag), 0))

    def _kind_in(self, tag: str) -> Kind:
        if tag == "dt":
            return Kind.TERM
        if tag == "li":
            return Kind.ITEM
        inherited = self._open[-1][0]
        return inherited if inherited is Kind.ITEM and tag != "dd" else Kind.PARAGRAPH

    def _leave(self, node: LexborNode) -> None:
        tag = node.tag or ""
        if tag in _HEADINGS or tag in _CONTAINERS:
            self._flush()
            self._open.pop()

    def _flush(self) -> None:
        text = clean("".join(self._text), self._counter)
        self._text.clear()
        kind, level = self._open[-1]
        text = one_line(text) if kind in (Kind.HEADING, Kind.TERM) else paragraph(text)
        if text:
            self._blocks.append(Block(kind, text, level))

    def _add_code(self, node: LexborNode) -> None:
        if self._is_unread(node):
            return
        self._flush()
        text = clean("".join(self._texts_in(node)), self._counter).expandtabs(4).strip("\n")
        if text.strip():
            self._blocks.append(Block(Kind.CODE, text.rstrip()))

    def _add_table(self, table: LexborNode) -> None:
        if self._is_unread(table):
            return
        self._flush()
        rows: list[str] = []
        has_header = False
        for row in table.css("tr"):
            if self._is_unread(row):
                continue
            cells = [cell for cell in _elements(row) if cell.tag in ("td", "th")]
            texts = [self._line_in(cell) for cell in cells]
            if any(texts):
                has_header = has_header or (not rows and all(cell.tag == "th" for cell in cells))
                rows.append(" | ".join(texts))
        if rows:
            self._blocks.append(Block(Kind.TABLE, "\n".join(rows), has_header=has_header))

    def _line_in(self, root: LexborNode) -> str:
        return one_line(clean("".join(self._texts_in(root)), self._counter))

    def _texts_in(self, root: LexborNode) -> Iterator[str]:
        if self._is_unread(root):
            return
        for node, is_end in _walk(root, lambda one: not one.is_text_node and self._is_unread(one)):
            if node.is_text_node:
                yield node.text_content or ""
            elif is_end and (node.tag == "br" or node.tag in _BLOCK_TAGS):
                yield "\n"


def _is_data(table: LexborNode) -> bool:
    """Tell a table of data from one that lays out a page: it holds no headings, tables or code."""
    return table.css_first("h1, h2, h3, h4, table table, pre, ul ul") is None and (
        len(table.css("tr")) > 1 or table.css_first("th") is not None
    )


def _elements(node: LexborNode) -> Iterator[LexborNode]:
    child = node.child
    while child is not None:
        if child.is_element_node:
            yield child
        child = child.next


def _walk(
    root: LexborNode, is_left_out: Callable[[LexborNode], bool]
) -> Iterator[tuple[LexborNode, bool]]:
    """Yield (node, is_end) under `root` in the order of reading: texts once, elements twice.

    Pages nest tens of thousands deep when somebody wants them to, so nothing here recurses.
    """
    node, depth = root.child, 0
    while node is not None:
        if node.is_text_node:
            yield node, False
        elif not is_left_out(node):
            yield node, False
            if node.child is not None:
                node, depth = node.child, depth + 1
                continue
            yield node, True
        while node.next is None:
            if depth == 0 or node.parent is None:
                return
            node, depth = node.parent, depth - 1
            yield node, True
        node = node.next
