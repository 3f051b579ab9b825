"""What is odd about single rows, whatever the base: marks of another template, texts of a wrong
decoding, answers that stand for a missing one, turns in an unusual order, answers that repeat the
question, ids that several rows share.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from training.data.finding import Finding, warned
from training.data.labels import STAND_INS, label_tasks
from training.data.rows import Row
from training.data.similar import text_key

SMALL_PART = 0.05  # of the rows: what is rarer than this is likelier a slip than a wish
_SHOWN = 3  # pieces that a sentence repeats
# Marks of chat templates, which are plain text to a base that has others: ChatML and its kin,
# Llama's, Gemma's, Alpaca's, and transcripts.
_MARKS = re.compile(
    r"<\|[a-z_]+\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|^\s*<s>|</s>\s*\Z|(?m:^###"
    r" (?:Instruction|Input|Response):)|\n\n(?:Human|Assistant): "
)
# UTF-8 that was read as Latin-1 or Windows-1252: what "é", "°", "“", "п", "р" and emoji become. Of
# what may follow Ã and Â, quotation marks and dashes are left out, since capitals at the end of a
# quoted word are followed by them.
_MISREAD = re.compile(
    "[ÃÂ][\u0080-\u009f\u00a1-\u00aa\u00ac-\u00ba\u00bc-\u00bf€‚ƒ„†‡ˆ‰Š‹ŒŽ•™š›œžŸ]|[ÃÂ]\u00a0|â€|ðŸ|[ÐÑ][\u0080-\u00bf€‚ƒ„†‡ˆ‰]|ï»¿"
)
# Answers in place of one, unless answers are labels, of which one may be called so. What never is a
# label stands in labels.py.
_STAND_INS_OR_LABELS = frozenset({"none", "n/a", "na", "xxx", "-", "--", "?"})


def oddities(rows: Sequence[Row]) -> list[Finding]:
    """All of these findings."""
    return [
        *_rendered(rows),
        *_broken(rows),
        *_stand_ins(rows),
        *_order(rows),
        *_echoes(rows),
        *_shared_ids(rows),
    ]


def _texts(row: Row) -> list[str]:
    return [*(str(message["content"]) for message in row.messages), row.rejected, *row.context]


def _rendered(rows: Sequence[Row]) -> list[Finding]:
    marked = {
        row.line: match.group().strip()
        for row in rows
        for text in _texts(row)
        if (match := _MARKS.search(text))
    }
    found = (
        f"{len(marked)} rows hold marks of a chat template ({_some(marked.values())}), which are"
        " plain text to this base and would be learned as such."
    )
    return warned(
        "marks",
        list(marked),
        found,
        "Give the messages as they were before a template was applied, each turn as one of its"
        " own.",
    )


def _some(texts: Iterable[str]) -> str:
    distinct = list(dict.fromkeys(texts))
    return ", ".join(map(repr, distinct[:_SHOWN])) + (", …" if len(distinct) > _SHOWN else "")


def _broken(rows: Sequence[Row]) -> list[Finding]:
    lines = [row.line for row in rows if any(map(_is_broken, _texts(row)))]
    found = f"{len(lines)} rows hold characters that a wrong decoding or a copy left behind."
    return warned(
        "broken_characters",
        lines,
        found,
        "Read the source again in its own encoding; `whet data clean FILE --into CLEAN` takes out"
        " control characters.",
    )


def _is_broken(text: str) -> bool:
    if text.isascii() and text.isprintable():
        return False
    control = not text.isprintable() and any(
        unicodedata.category(character) == "Cc" and character not in "\n\t\r" for character in text
    )
    return control or "\ufffd" in text or _MISREAD.search(text) is not None


def _stand_ins(rows: Sequence[Row]) -> list[Finding]:
    labels = {id(row) for members in label_tasks(rows).values() for row in members}
    bad = [
        row
        for row in rows
        if (said := row.answer.strip().casefold()) in STAND_INS
        or (said in _STAND_INS_OR_LABELS and id(row) not in labels)
    ]
    found = (
        f"{len(bad)} answers stand for a missing one ({_some(row.answer.strip() for row in bad)})."
    )
    return warned(
        "stand_ins",
        [row.line for row in bad],
        found,
        "Write the answers, or take the rows out: the model would learn to say it.",
    )


def _order(rows: Sequence[Row]) -> list[Finding]:
    odd = {
        row.line: kinds
        for row in rows
        if not row.is_text and (kinds := list(dict.fromkeys(_odd_turns(row))))
    }
    said = ", ".join(
        f"{count} with {kind}"
        for kind, count in Counter(kind for kinds in odd.values() for kind in kinds).items()
    )
    do = (
        "Look for turns that are missing or swapped, and put instructions first: many chat"
        " templates refuse such a conversation."
    )
    return warned(
        "order", list(odd), f"{len(odd)} conversations have an unusual order ({said}).", do
    )


def _odd_turns(row: Row) -> Iterator[str]:
    leading = ("system", "developer")
    if any(message["role"] in leading for message in row.messages[1:]):
        yield "instructions after the first message"
    turns = [message for message in row.messages if message["role"] not in leading]
    if turns[0]["role"] == "assistant":
        yield "the assistant first"
    if any(one["role"] == other["role"] == "user" for one, other in pairwise(turns)):
        yield "two messages of the user in a row"
    if any(
        not message["content"].strip()
        and not message.get("tool_calls")
        and message["role"] != "tool"
        for message in row.messages
    ):
        yield "an empty message"


def _echoes(rows: Sequence[Row]) -> list[Finding]:
    """In a task of corrections many answers are the question again; a few among others are a slip."""
    lines = [
        row.line
        for row in rows
        if (asked := [m for m in row.messages if m["role"] == "user"])
        and text_key(row.answer) == text_key(asked[-1]["content"])
    ]
    few = lines if len(lines) <= max(1, SMALL_PART * len(rows)) else []
    return warned(
        "echoes",
        few,
        f"{len(few)} answers are the question again.",
        "Write the answers, or take the rows out.",
    )


def _shared_ids(rows: Sequence[Row]) -> list[Finding]:
    """A copy of a row is a duplicate; other rows of one id cannot be told apart in lists, parents
    and traces.
    """
    held: dict[str, dict[str, int]] = defaultdict(dict)
    for row in rows:
        held[row.id].setdefault(row.digest, row.line)
    groups = [list(lines.values()) for lines in held.values() if len(lines) > 1]
    return warned(
        "shared_ids",
        groups,
        f"{len(groups)} ids stand on several different rows.",
        "Give each row an id of its own, or none: one is made then.",
    )
