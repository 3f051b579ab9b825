"""How a JSON column is decoded into its record and encoded again.

A record keeps fields that a newer version wrote: it is read, changed and written without losing
what this version does not know (docs/decisions/0019-records.md). `whet.tables` imports none of this:
building the classes takes longer than most commands may.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from whet.errors import DatabaseError
from whet.json_types import Json, JsonObject

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")
SHAPES: dict[str, JsonShape[Any]] = {}  # `table.column` → its shape


class Record(BaseModel):
    """A JSON object of a column. Fields that are not declared are kept as they are.

    What was absent stays absent, and what was null stays null (`exclude_unset`).
    """

    # Validators are built at the first use: most commands read none of the columns.
    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    def as_json(self) -> JsonObject:
        """Return the object as it is stored."""
        return self.model_dump(mode="json", exclude_unset=True)


class JsonShape(Generic[T]):
    """What one JSON column holds: `T`, which may be a record or a container of them."""

    def __init__(self, column: str, of: TypeForm[T]) -> None:
        """`column`: as in `alerts.detail`. `of`: the type that `T` names."""
        self.column, self.of = column, of
        SHAPES[column] = self

    @cached_property
    def _adapter(self) -> TypeAdapter[T]:
        return TypeAdapter(self.of)

    def decode(self, stored: object) -> T:
        """Return the record of a stored value. Raises DatabaseError for what is none."""
        try:
            return self._adapter.validate_python(stored)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "the value"
            raise DatabaseError(
                f"{self.column} cannot be read: {place}: {first['msg']}.",
                hint="The row was written by something other than Whet, or by a newer version.",
            ) from None

    def encode(self, record: T) -> Json:
        """Return what is stored of a record."""
        found: Json = self._adapter.dump_python(record, mode="json", exclude_unset=True)
        return found
