"""Filters of a search: which documents may answer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from whet.errors import InputError
from whet.json_types import Json

_OWN_FIELDS = ("address", "language", "title")
_SCALARS = (str, int, float, bool)


class IndexedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What an index knows of a document: whatever a filter can ask for."""

    id: str
    address: str
    language: str
    title: str
    metadata: dict[str, Any] = {}


def check_filter(given: Mapping[str, Json]) -> None:
    """Raise InputError unless each value is a scalar or a list of scalars."""
    for field, value in given.items():
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(each, _SCALARS) or each is None for each in values):
            raise InputError(
                f"The filter on {field!r} is {value!r:.80}; expected a value or a list of values.",
            )


def document_mask(
    documents: Sequence[IndexedDocument], given: Mapping[str, Json]
) -> NDArray[np.bool_]:
    """Tell for each document whether every condition of the filter holds."""
    return np.fromiter((_matches(each, given) for each in documents), bool, len(documents))


def _matches(document: IndexedDocument, given: Mapping[str, Json]) -> bool:
    return all(_holds(_field(document, field), wanted) for field, wanted in given.items())


def _field(document: IndexedDocument, field: str) -> Any:
    if field in _OWN_FIELDS:
        return getattr(document, field)
    return document.metadata.get(field)


def _holds(found: Any, wanted: Any) -> bool:
    """A list in the metadata matches when it holds one of the wanted values."""
    accepted = wanted if isinstance(wanted, list) else [wanted]
    values = found if isinstance(found, list) else [found]
    return any(_equal(value, each) for value in values for each in accepted)


def _equal(left: Any, right: Any) -> bool:
    return left == right and isinstance(left, bool) == isinstance(right, bool)
