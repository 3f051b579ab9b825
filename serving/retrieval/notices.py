"""Sentences on what a parser left out."""

from __future__ import annotations

from serving.retrieval.records import Notice

SENTENCES = {
    "hidden_text": "{} texts that no reader sees were left out",
    "unseen_characters": "{} characters that no reader sees were left out",
    "pages_without_text": "{} pages have no text: they are images",
    "no_text": "it has no text, so that no search finds it",
}


def notice_text(notice: Notice) -> str:
    """Return a notice as a sentence without its full stop."""
    return SENTENCES.get(notice.code, notice.code + ": {}").format(notice.count)
