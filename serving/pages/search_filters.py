"""What the address of Traffic says: words, filters, order, columns, and where a page begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from urllib.parse import parse_qsl, urlencode

from serving.pages.search_words import parse_search
from whet import traffic_series

PERIODS = (*traffic_series.PERIODS, "all")
STATUSES = ("complete", "cancelled", "error", "cut")
RATINGS = ("up", "down", "any")
SORTS = {
    "duration": "duration_ms", "ttft": "ttft_ms", "tokens": "completion_tokens",
    "failed": "is_failed",
}  # fmt: skip
COLUMNS = {
    "version": "Answered by", "user": "User", "flags": "Flags", "prompt_tokens": "Prompt tokens",
    "tokens": "Tokens", "ttft": "TTFT", "duration": "Whole answer", "session": "Session",
}  # fmt: skip
USUAL_COLUMNS = ("version", "flags", "tokens", "ttft")


_LONGEST = {
    "q": 400, "alias": 64, "version": 12, "user": 256, "start": 20, "end": 20, "sort": 20,
    "columns": 120, "before": 80,
}  # fmt: skip


@dataclass(frozen=True)
class Filters:
    """What the address of a search says.

    Unknown values count as not given, so an old link never fails.
    """

    q: str = ""
    alias: str = ""
    version: str = ""
    status: str = ""
    rating: str = ""
    user: str = ""
    since: str = traffic_series.DEFAULT_PERIOD
    start: str = ""  # ms; with `end` in place of `since`: one step of the charts
    end: str = ""
    sort: str = ""  # newest first, or a name of SORTS; with "-" before it, the lowest first
    columns: str = ""  # names of COLUMNS with commas between; "" for those that are usual
    before: str = ""  # cursor: where the page before ended

    @classmethod
    def given(cls, values: Mapping[str, str]) -> Filters:
        """Read the values of an address, with the filters that its words name."""
        known = {
            item.name: values[item.name][: _LONGEST.get(item.name, 20)]
            for item in fields(cls)
            if values.get(item.name)
        }
        if known.get("since") not in PERIODS:
            known.pop("since", None)
        return cls(**known).read_words()

    @classmethod
    def from_query(cls, query: str) -> Filters:
        """Read a search from the part of an address after `?`."""
        return cls.given(dict(parse_qsl(query.removeprefix("/traffic").removeprefix("?"))))

    @property
    def narrowed(self) -> bool:
        given = (self.q, self.alias, self.version, self.status, self.rating, self.user)
        return any(given) or self.span is not None

    @property
    def span(self) -> tuple[int, int] | None:
        """The chosen time (ms) from `start` up to `end`."""
        if not (self.start.isdecimal() and self.end.isdecimal()):
            return None
        return min(int(self.start), 2**62), min(int(self.end), 2**62)

    @property
    def sort_column(self) -> str:
        """The column of `interaction_search` that rows are sorted by; "" for the newest first."""
        return SORTS.get(self.sort.removeprefix("-"), "")

    @property
    def shown_columns(self) -> list[str]:
        """The chosen columns in the order of the table."""
        chosen = self.columns.split(",") if self.columns else USUAL_COLUMNS
        return [name for name in COLUMNS if name in chosen]

    @property
    def given_fields(self) -> list[tuple[str, str]]:
        """Names and values of what is not as usual, for the hidden fields of a form."""
        return parse_qsl(self.address().partition("?")[2])

    def export_address(self, form: str) -> str:
        """The address of a file with all that this search finds."""
        query = self.address().partition("?")[2]
        return f"/traffic/export?{query}{'&' if query else ''}{urlencode({'format': form})}"

    def read_words(self) -> Filters:
        """This search with the filters that its words name, such as user:ada, as filters."""
        words = parse_search(self.q)
        return replace(self, q=words.text, **words.filters) if words.filters else self

    def address(self, **changes: str) -> str:
        """This search with some of it changed, as a shareable address."""
        values = (
            {item.name: getattr(self, item.name) for item in fields(self)}
            | {"before": ""}
            | changes
        )
        given = {
            name: value
            for name, value in values.items()
            if value and not (name == "since" and value == traffic_series.DEFAULT_PERIOD)
        }
        return "/traffic" + (f"?{urlencode(given)}" if given else "")
