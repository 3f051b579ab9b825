"""Reads Markdown (CommonMark with tables) by way of HTML, so that both have one reader."""

from __future__ import annotations

import re

import msgspec
from markdown_it import MarkdownIt

from serving.retrieval.parsing.blocks import ParsedDocument
from serving.retrieval.parsing.html import parse_html
from serving.retrieval.parsing.texts import NoticeCounter

MEDIA_TYPE = "text/markdown"
_FRONT_MATTER = re.compile(
    r"\A---[ \t]*\n(?P<fields>.{0,20000}?)^(?:---|\.\.\.)[ \t]*$\n?", re.S | re.M
)
_TITLE = re.compile(r"^title[ \t]*:[ \t]*(?P<title>[^\n]+)$", re.M)


def parse_markdown(text: str, *, counter: NoticeCounter) -> ParsedDocument:
    """Read Markdown. Of front matter only `title` is taken."""
    text = text.replace("\r\n", "\n").removeprefix("\ufeff")
    title = ""
    if front := _FRONT_MATTER.match(text):
        if told := _TITLE.search(front["fields"]):
            title = told["title"].strip().strip("'\"")
        text = text[front.end() :]
    html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)
    parsed = parse_html(html, counter=counter, is_page=False)
    return msgspec.structs.replace(parsed, title=title or parsed.title, media_type=MEDIA_TYPE)
