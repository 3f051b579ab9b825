"""The names of files that are read as documents."""

from __future__ import annotations

HTML_SUFFIXES = (".html", ".htm", ".xhtml")
MARKDOWN_SUFFIXES = (".md", ".markdown", ".mdx")
CSV_SUFFIXES = (".csv", ".tsv")
JSONL_SUFFIXES = (".jsonl", ".ndjson")
TEXT_SUFFIXES = (".txt", ".text", ".rst", ".adoc", ".org", ".log")
KNOWN_SUFFIXES = frozenset(
    (
        *HTML_SUFFIXES,
        *MARKDOWN_SUFFIXES,
        *CSV_SUFFIXES,
        *JSONL_SUFFIXES,
        *TEXT_SUFFIXES,
        ".pdf",
        ".docx",
    )
)
