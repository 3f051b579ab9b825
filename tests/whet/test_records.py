"""Records of JSON columns: what is read is written back as it was, unknown fields included."""

from __future__ import annotations

import importlib
import pkgutil
import types
from typing import Any, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue
from sqlalchemy import JSON, Column, Integer, MetaData, Table

import whet.records
from whet.errors import DatabaseError
from whet.records.monitoring import ALERT_DETAIL, AlertDetail
from whet.records.shape import SHAPES, Record
from whet.tables import WRITERS, metadata

for _module in pkgutil.iter_modules(whet.records.__path__):
    importlib.import_module(f"whet.records.{_module.name}")

_LEAVES: dict[object, st.SearchStrategy[Any]] = {
    str: st.text(max_size=8),
    int: st.integers(-(2**53), 2**53),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    type(None): st.none(),
}
_json = st.recursive(
    st.one_of(*_LEAVES.values()),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)
# Fields that a newer version may write: no field of today begins so.
_unknown = st.dictionaries(st.text(max_size=4).map("newer_{}".format), _json, max_size=2)


def _stored(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy of what a column of this type may hold."""
    if kind == JsonValue:
        return _json
    if kind in _LEAVES:
        return _LEAVES[kind]
    if isinstance(kind, type) and issubclass(kind, Record):
        return _object(kind)
    inner = [_stored(part) for part in get_args(kind)]
    if get_origin(kind) in (Union, types.UnionType):
        return st.one_of(*inner)
    if get_origin(kind) is list:
        return st.lists(inner[0], max_size=2)
    if get_origin(kind) is tuple:
        return st.tuples(*inner).map(list)
    if get_origin(kind) is dict:
        return st.dictionaries(inner[0], inner[1], max_size=2)
    raise AssertionError(f"no strategy for {kind}: say here what it may hold")


def _object(kind: type[Record]) -> st.SearchStrategy[dict[str, Any]]:
    kind.model_rebuild()
    fields = {name: _stored(field.annotation) for name, field in kind.model_fields.items()}
    needed = {name for name, field in kind.model_fields.items() if field.is_required()}
    known = st.fixed_dictionaries(
        {name: fields[name] for name in sorted(needed)},
        optional={name: fields[name] for name in sorted(fields.keys() - needed)},
    )
    return st.builds(lambda known, unknown: {**unknown, **known}, known, _unknown)


@pytest.mark.parametrize("column", sorted(SHAPES))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_stored_value_is_written_back_as_it_was_read(column: str, data: st.DataObject) -> None:
    shape = SHAPES[column]
    stored = data.draw(_stored(shape.of))
    assert shape.encode(shape.decode(stored)) == stored, "a field was lost or changed on the way"


def test_a_change_keeps_what_a_newer_version_wrote_at_every_depth() -> None:
    stored = {
        "newer": 1,
        "signals": [{"name": "refusal", "newer": [2]}],
        "incident": {"id": "support-2026-03-01-refusal", "newer": {"a": None}},
        "stable_digest": None,
    }
    read = ALERT_DETAIL.decode(stored)
    assert read is not None
    changed = read.model_copy(update={"resolution": "Back to normal."})
    assert ALERT_DETAIL.encode(changed) == {**stored, "resolution": "Back to normal."}


def test_a_record_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        AlertDetail().resolution = "over"  # type: ignore[misc]


def test_what_is_no_record_says_which_column_and_field() -> None:
    with pytest.raises(DatabaseError, match=r"alerts\.detail .*incident.*id"):
        ALERT_DETAIL.decode({"incident": {"state": "open"}})


NOT_YET: tuple[str, ...] = ()  # packages whose columns have no records yet


def _columns(tables: MetaData) -> set[str]:
    return {
        f"{table.name}.{column.name}"
        for table in tables.tables.values()
        for column in table.columns
        if isinstance(column.type, JSON)
    }


def test_every_json_column_has_its_record() -> None:
    needed = {c for c in _columns(metadata) if WRITERS[c.partition(".")[0]] not in NOT_YET}
    assert not needed - SHAPES.keys(), "define the column's record in whet/records"
    assert not SHAPES.keys() - _columns(metadata), "there is no such column of JSON"


def test_columns_of_json_are_found() -> None:
    planted = MetaData()
    Table("planted", planted, Column("id", Integer, primary_key=True), Column("detail", JSON))
    assert _columns(planted) == {"planted.detail"}
