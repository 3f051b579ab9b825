"""Reads Word documents (DOCX): headings by style, lists, tables. Macros and links stay behind."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from docx import Document as open_docx
from docx.opc.exceptions import OpcError
from docx.oxml.ns import qn
from lxml.etree import LxmlError

from serving.retrieval.parsing.archive import check_archive
from serving.retrieval.parsing.blocks import Block, Kind, ParsedDocument, ParseError
from serving.retrieval.parsing.texts import NoticeCounter, clean, one_line, paragraph

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
MAIN_PART = "word/document.xml"
_HEADING_STYLE = re.compile(r"heading\s*([1-9])", re.IGNORECASE)
_TITLE_STYLES = ("title",)
_HALF_POINTS = 2  # Word counts sizes in half points
_SMALLEST_POINTS = 2
_LEFT_OUT = frozenset(map(qn, ("w:del", "w:moveFrom", "w:pict", "w:drawing", "w:object")))
_WHITE = ("FFFFFF", "ffffff")


def parse_docx(content: bytes, *, counter: NoticeCounter) -> ParsedDocument:
    """Read a DOCX. Raises ParseError when it is damaged or larger than it says."""
    check_archive(content)
    try:
        document = open_docx(io.BytesIO(content))
    except (OpcError, LxmlError, zipfile.BadZipFile, KeyError, ValueError, AttributeError) as error:
        raise ParseError(f"It is damaged: {type(error).__name__} when it was opened.") from None
    styles = {style.style_id: style.name or "" for style in document.styles}
    blocks = list(_Reader(styles, counter).read(document.element.body))
    title = one_line(clean(document.core_properties.title or "", counter))
    return ParsedDocument(
        title=title or _first_heading(blocks),
        media_type=MEDIA_TYPE,
        blocks=blocks,
        notices=counter.notices(),
    )


def _first_heading(blocks: list[Block]) -> str:
    return next((block.text for block in blocks if block.kind is Kind.HEADING), "")


class _Reader:
    """Turns the elements of a document's body into blocks."""

    def __init__(self, styles: dict[str, str], counter: NoticeCounter) -> None:
        self._styles = styles
        self._counter = counter

    def read(self, body: Any) -> Iterator[Block]:
        """Yield the blocks of a body, in order. Content controls are read like the text around."""
        waiting = [iter(body)]
        while waiting:
            element = next(waiting[-1], None)
            if element is None:
                waiting.pop()
            elif element.tag == qn("w:p"):
                yield from self._paragraph(element)
            elif element.tag == qn("w:tbl"):
                yield from self._table(element)
            elif element.tag not in _LEFT_OUT:
                waiting.append(iter(element))

    def _paragraph(self, element: Any) -> Iterator[Block]:
        text = self._text(element)
        if not text:
            return
        level = self._heading_level(element)
        if level:
            yield Block(Kind.HEADING, one_line(text), level)
        elif element.find(f"{qn('w:pPr')}/{qn('w:numPr')}") is not None or "list" in (
            self._style(element).lower()
        ):
            yield Block(Kind.ITEM, text)
        else:
            yield Block(Kind.PARAGRAPH, text)

    def _heading_level(self, element: Any) -> int:
        name = self._style(element)
        if match := _HEADING_STYLE.match(name):
            return int(match[1])
        if name.lower() in _TITLE_STYLES:
            return 1
        outline = element.find(f"{qn('w:pPr')}/{qn('w:outlineLvl')}")
        value = outline.get(qn("w:val"), "") if outline is not None else ""
        return int(value) + 1 if value.isdecimal() and int(value) < 9 else 0

    def _style(self, element: Any) -> str:
        style = element.find(f"{qn('w:pPr')}/{qn('w:pStyle')}")
        return self._styles.get(style.get(qn("w:val")), "") if style is not None else ""

    def _table(self, element: Any) -> Iterator[Block]:
        rows = []
        for row in element.iter(qn("w:tr")):
            cells = [
                " ".join(filter(None, (self._text(one) for one in cell.iter(qn("w:p")))))
                for cell in row.iterchildren(qn("w:tc"))
            ]
            if any(cells):
                rows.append(" | ".join(map(one_line, cells)))
        if rows:
            yield Block(Kind.TABLE, "\n".join(rows), has_header=len(rows) > 1)

    def _text(self, element: Any) -> str:
        parts: list[str] = []
        for run in element.iter(qn("w:r")):
            if any(parent.tag in _LEFT_OUT for parent in run.iterancestors()):
                continue
            text = "".join(_run_texts(run))
            if text.strip() and _is_hidden(run):
                self._counter.add("hidden_text")
            else:
                parts.append(text)
        return paragraph(clean("".join(parts), self._counter))


def _run_texts(run: Any) -> Iterator[str]:
    for child in run:
        if child.tag == qn("w:t"):
            yield child.text or ""
        elif child.tag == qn("w:tab"):
            yield " "
        elif child.tag in (qn("w:br"), qn("w:cr")):
            yield "\n"
        elif child.tag == qn("w:noBreakHyphen"):
            yield "-"


def _is_hidden(run: Any) -> bool:
    """Tell whether a run is marked hidden, white, or smaller than anybody reads."""
    properties = run.find(qn("w:rPr"))
    if properties is None:
        return False
    vanish = properties.find(qn("w:vanish"))
    if vanish is not None and vanish.get(qn("w:val"), "1") not in ("0", "false", "off"):
        return True
    size = properties.find(qn("w:sz"))
    value = size.get(qn("w:val"), "") if size is not None else ""
    if value.isdecimal() and int(value) < _SMALLEST_POINTS * _HALF_POINTS:
        return True
    colour = properties.find(qn("w:color"))
    is_white = colour is not None and colour.get(qn("w:val")) in _WHITE
    return is_white and properties.find(qn("w:shd")) is None
