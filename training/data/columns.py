"""Names of a file's fields: `--columns` of the command line, capitals and spaces around names.

The names that other tools write are known too: `question` and `answer`, `query` and `response`, …
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from training.data.wrong import Wrong, shown
from whet.errors import InputError
from whet.json_types import Json, JsonObject

# What people call the question and the answer, beside prompt and completion. A name stands here
# only if it can mean nothing else beside one of the other list.
QUESTIONS = (
    "prompt", "question", "query", "instruction", "input", "user_input", "user_message",
    "user_prompt", "customer_message", "request", "problem",
)  # fmt: skip
ANSWERS = (
    "completion", "answer", "response", "output", "reply", "expected_output", "expectedoutput",
    "expected_answer", "assistant_response", "assistant_message", "bot_response",
    "agent_response", "target", "solution",
)  # fmt: skip
SYSTEMS = ("system_prompt", "system_message", "system_instruction", "systeminstruction")
# Lists of messages under other names.
DIALOGUES = (
    "conversations",
    "conversation",
    "dialogue",
    "dialog",
    "turns",
    "chat",
    "chat_history",
    "contents",
)
RATED = ("label", "kto_tag")  # TRL's KTO rows, and LLaMA-Factory's
# Further names that `training/data/native.py` reads.
_OTHERS = ("history", "tools", "functions", "preferred_output", "non_preferred_output")
READ_NAMES = frozenset((*QUESTIONS, *ANSWERS, *SYSTEMS, *DIALOGUES, *RATED, *_OTHERS))

_SHOWN = 8  # names that a sentence lists
_SPACE = re.compile(r"[\s\-]+")
_INVISIBLE = "\ufeff\u200b"  # what a byte-order mark or a web page leaves before a name


def plain_name(name: str) -> str:
    """Return a name as Whet writes names: small letters, `_` for spaces and hyphens."""
    return _SPACE.sub("_", name.strip().strip(_INVISIBLE).strip().casefold())


def listed(names: Iterable[object]) -> str:
    """Return names for a sentence, the first few of many."""
    found = [shown(str(name)) for name in names]
    return ", ".join(found[:_SHOWN]) + (", …" if len(found) > _SHOWN else "")


@dataclass(frozen=True, slots=True)
class Columns:
    """Which names of a file stand for which fields of a row: (field, name in the file)."""

    pairs: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def field_of(self, name: str) -> str | None:
        """Return the field that a file's name was said to be."""
        return next((field for field, theirs in self.pairs if theirs == name.strip()), None)

    def renamed(self, raw: JsonObject) -> JsonObject:
        """Return the row with the named fields. What had such a name before is kept as `X (file)`.

        A name with points is looked for inside objects and lists. Raises Wrong for several values.
        """
        found = {field: value_at(raw, name) for field, name in self.pairs}
        found = {field: value for field, value in found.items() if value is not None}
        moved = {name for field, name in self.pairs if field in found}
        kept = {
            f"{name} (file)" if name in found and name not in moved else name: value
            for name, value in raw.items()
            if name not in moved
        }
        return {**kept, **found}

    def require_found(self, rows: Sequence[JsonObject], source: str) -> None:
        """Raise InputError for a name that no row has."""
        for field, name in self.pairs if rows else ():
            if not any(_has(row, name) or _has(row, field) for row in rows):
                names = dict.fromkeys(key for row in rows for key in row)
                raise InputError(
                    f"{source} has no column {name!r}; found {listed(names)}.",
                    hint=f"Write --columns {field}=NAME with one of these names.",
                )


NO_COLUMNS = Columns()


def parse_columns(text: str, fields: frozenset[str]) -> Columns:
    """Read `prompt=Frage,completion=Antwort`. Raises InputError for what is no such list."""
    pairs = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        field, equals, name = (piece.strip() for piece in part.partition("="))
        if not equals or not name or field not in fields:
            raise InputError(
                f"--columns {part!r} does not name a field of a row and a column of the file.",
                hint=(
                    "Write FIELD=COLUMN,… such as --columns prompt=Frage,completion=Antwort; "
                    f"fields are {', '.join(sorted(fields))}."
                ),
            )
        pairs.append((field, name))
    if len({field for field, _ in pairs}) < len(pairs):
        raise InputError(f"--columns {text!r} names a field twice.", hint="Name each field once.")
    return Columns(tuple(pairs))


def value_at(value: Json, path: str) -> Json:
    """Return what stands under a name, or under names joined by points; None for nothing.

    Of a list, the one value that its members have there. Raises Wrong when they have several.
    """
    if isinstance(value, dict):
        if path in value:
            return value[path]
        head, point, rest = path.partition(".")
        return value_at(value[head], rest) if point and head in value else None
    if isinstance(value, list):
        found = [one for item in value if (one := value_at(item, path)) is not None]
        if any(one != found[0] for one in found[1:]):
            raise Wrong(f"{len(found)} different values under {shown(path)}", "one value")
        return found[0] if found else None
    return None


def _has(row: JsonObject, path: str) -> bool:
    try:
        return value_at(row, path) is not None
    except Wrong:
        return True


def with_plain_names(raw: JsonObject, known: frozenset[str]) -> JsonObject:
    """Return the row with known names written as Whet writes them: `Prompt ` becomes `prompt`."""
    renames = {
        name: plain
        for name in raw
        if name not in known and (plain := plain_name(name)) != name and plain in known
    }
    if not renames or len({*renames.values()}) < len(renames) or renames.keys() & known:
        return raw
    if any(plain in raw for plain in renames.values()):
        return raw
    return {renames.get(name, name): value for name, value in raw.items()}
