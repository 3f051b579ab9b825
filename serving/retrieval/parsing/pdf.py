"""Reads PDF text by page: headings by their size, without lines that repeat on most pages."""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from serving.retrieval.parsing.blocks import Block, Kind, ParsedDocument, ParseError
from serving.retrieval.parsing.texts import NoticeCounter, clean, one_line

MEDIA_TYPE = "application/pdf"
_MOST_PAGES = 5_000
_HEADING_RATIO = 1.15  # of a heading's letters to the body's; less is emphasis or rounding
_LONGEST_HEADING = 120  # characters
_HEADING_LEVELS = 4  # sizes that are told apart
_REPEATED_ON = 0.5  # share of the pages; a line on more is the page's head or foot
_LEAST_PAGES = 4  # of a document in which repetition says anything
_EDGE_LINES = 3  # from the top and from the bottom, in which head and foot stand
_SMALLEST = 2.0  # points; nobody reads smaller letters
_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD
_NUMBER = re.compile(r"\d+")
_HYPHENATED = re.compile(r"(?<=[^\W\d_])-$")
_SHORT_LINE = 0.8  # of the next one: a line that ends a paragraph seldom fills it
_WHITE = 250  # of 255
_HYPHENS = "\x02\ufffe"  # what PDFium makes of a hyphen with the line's end after it
_LINE_ENDS = f"\r\n{_HYPHENS}"
_SENTENCE_END = (".", "!", "?", ":", ";")
_BULLETS = ("\u2022", "\u25cf", "\u25aa", "\u2023", "\uf0b7")
_LEADERS = re.compile(r"(?:\. ?){6}")
_LIGATURES = {
    "\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl",
    "\ufb05": "st", "\ufb06": "st",
}  # fmt: skip
_FOLD = str.maketrans(_LIGATURES)


class _Span(NamedTuple):
    """A line of a page as it is drawn."""

    text: str
    size: float  # of its letters, in points
    is_white: bool
    place: tuple[float, float, float, float]  # of its first letter: left, bottom, right, top


class _Line(NamedTuple):
    """A line of a document as it is read."""

    text: str
    size: float
    page: int
    is_edge: bool  # among the first or last of its page

    @property
    def pattern(self) -> str:
        """The line with its numbers alike: page numbers differ, the line is the same."""
        return _NUMBER.sub("#", self.text)


def parse_pdf(content: bytes, *, counter: NoticeCounter) -> ParsedDocument:
    """Read a PDF. Raises ParseError when it is damaged, encrypted, too long or only images."""
    try:
        document = pdfium.PdfDocument(content)
    except pdfium.PdfiumError as error:
        if getattr(error, "err_code", None) == _PASSWORD_ERROR:
            raise ParseError(
                "It is encrypted.", hint="Save it without a password, then add it again."
            ) from None
        raise ParseError("It is damaged: no PDF reader opens it.") from None
    try:
        return _read(document, counter)
    finally:
        document.close()


def _read(document: Any, counter: NoticeCounter) -> ParsedDocument:
    if len(document) > _MOST_PAGES:
        raise ParseError(f"It has {len(document)} pages; at most {_MOST_PAGES} are read.")
    lines: list[_Line] = []
    empty_pages = 0
    for number in range(len(document)):
        found = _lines_of(document, number, counter)
        empty_pages += not found
        lines += found
    if not lines:
        if counter.notices():
            raise ParseError("None of its text can be seen: it is tiny, or white on white.")
        raise ParseError(
            f"None of its {len(document)} pages has text: they are images.",
            hint="Run text recognition over it, then add it again.",
        )
    if empty_pages:
        counter.add("pages_without_text", empty_pages)
    kept = _without_repeated(lines, len(document))
    title = one_line(clean(document.get_metadata_value("Title"), counter))
    blocks = list(_blocks(kept))
    return ParsedDocument(
        title=title, media_type=MEDIA_TYPE, blocks=blocks, notices=counter.notices()
    )


def _lines_of(document: Any, number: int, counter: NoticeCounter) -> list[_Line]:
    page = document[number]
    text_page = page.get_textpage()
    try:
        spans = list(_spans(text_page))
        hidden = _hidden(page, spans)
    finally:
        text_page.close()
        page.close()
    if hidden:
        counter.add("hidden_text", len(hidden))
    visible = [span for at, span in enumerate(spans) if at not in hidden]
    lines = []
    for position, span in enumerate(visible):
        is_edge = position < _EDGE_LINES or position >= len(visible) - _EDGE_LINES
        plain = one_line(clean(span.text.translate(_FOLD), counter))
        if plain:
            lines.append(_Line(plain, span.size, number + 1, is_edge))
    return lines


def _spans(text_page: Any) -> Iterator[_Span]:
    """Yield the lines of a page; size, colour and place are those of their first letter."""
    letters: list[str] = []
    first = -1
    for index in range(text_page.count_chars()):
        letter = chr(raw.FPDFText_GetUnicode(text_page, index))
        if letter in _LINE_ENDS:
            if first >= 0:
                end = "-" if letter in _HYPHENS else ""
                yield _span(text_page, "".join(letters) + end, first)
            letters, first = [], -1
            continue
        if first < 0 and not letter.isspace():
            first = index
        letters.append(letter)
    if first >= 0:
        yield _span(text_page, "".join(letters), first)


def _span(text_page: Any, text: str, first: int) -> _Span:
    box = raw.FS_RECTF()
    raw.FPDFText_GetLooseCharBox(text_page, first, box)
    colour = [ctypes.c_uint() for _ in range(4)]
    raw.FPDFText_GetFillColor(text_page, first, *colour)
    is_white = all(part.value >= _WHITE for part in colour[:3])
    place = (box.left, box.bottom, box.right, box.top)
    return _Span(text, abs(box.top - box.bottom), is_white, place)


def _hidden(page: Any, spans: list[_Span]) -> set[int]:
    """Return the positions of lines that nobody sees: tiny, or white where the page is white."""
    hidden = {at for at, span in enumerate(spans) if span.size < _SMALLEST}
    white = [at for at, span in enumerate(spans) if span.is_white and at not in hidden]
    if not white:
        return hidden
    picture = page.render(scale=1, grayscale=True).to_numpy()
    left, _, _, top = page.get_bbox()
    for at in white:
        x0, y0, x1, y1 = spans[at].place
        rows = slice(max(int(top - y1), 0), max(int(top - y0) + 1, 0))
        around = picture[rows, max(int(x0 - left), 0) : max(int(x1 - left) + 1, 0)]
        if around.size == 0 or around.min() >= _WHITE:
            hidden.add(at)
    return hidden


def _without_repeated(lines: list[_Line], page_count: int) -> list[_Line]:
    """Return the lines without heads and feet: those that stand at the edge of most pages."""
    if page_count < _LEAST_PAGES:
        return lines
    pages: dict[str, set[int]] = {}
    for line in lines:
        if line.is_edge:
            pages.setdefault(line.pattern, set()).add(line.page)
    repeated = {text for text, on in pages.items() if len(on) > page_count * _REPEATED_ON}
    return [line for line in lines if not (line.is_edge and line.pattern in repeated)]


def _blocks(lines: list[_Line]) -> Iterator[Block]:
    sizes = Counter[float]()
    for line in lines:
        sizes[round(line.size, 1)] += len(line.text)
    body = sizes.most_common(1)[0][0] if sizes else 0.0
    larger = sorted({size for size in sizes if size > body * _HEADING_RATIO}, reverse=True)
    levels = {size: min(rank, _HEADING_LEVELS) for rank, size in enumerate(larger, start=1)}
    gathered: list[_Line] = []
    for line in lines:
        if _LEADERS.search(line.text):  # of a table of contents
            continue
        level = levels.get(round(line.size, 1))
        if level is not None and len(line.text) <= _LONGEST_HEADING and _has_word(line.text):
            yield from _paragraph(gathered)
            gathered = []
            yield Block(Kind.HEADING, line.text, level, line.page)
            continue
        if gathered and _ends_paragraph(gathered[-1], line):
            yield from _paragraph(gathered)
            gathered = []
        gathered.append(line)
    yield from _paragraph(gathered)


def _has_word(text: str) -> bool:
    return any(letter.isalpha() for letter in text)


def _ends_paragraph(before: _Line, line: _Line) -> bool:
    """Tell whether a paragraph ends between two lines.

    It goes on over a page's end when its sentence does.
    """
    if line.text.startswith(_BULLETS):
        return True
    is_sentence_over = before.text.endswith(_SENTENCE_END)
    if before.page != line.page:
        return is_sentence_over
    return is_sentence_over and len(before.text) < len(line.text) * _SHORT_LINE


def _paragraph(lines: list[_Line]) -> Iterator[Block]:
    if not lines:
        return
    text = lines[0].text
    for line in lines[1:]:
        is_divided = _HYPHENATED.search(text) and line.text[0].islower()
        text = text[:-1] + line.text if is_divided else f"{text} {line.text}"
    kind = Kind.ITEM if text.startswith(_BULLETS) else Kind.PARAGRAPH
    yield Block(kind, text.lstrip("".join(_BULLETS)).lstrip(), page=lines[0].page)
