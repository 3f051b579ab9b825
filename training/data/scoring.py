"""How an answer is scored against its row. Pure functions of text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from training.data.rows import Row
from training.data.tools import FoundCall, find_calls, overlap_of_calls, same_calls


@dataclass(frozen=True, slots=True)
class Score:
    """Both from 0 to 1."""

    # 1 when every check occurs, or, without checks, when the answer equals the reference in normal
    # form; of calls: when they are the same
    correct: float
    # Overlap with the reference in words (of calls: in names and arguments): shows progress where
    # nothing is right to the letter yet
    f1: float


def normal(text: str) -> str:
    """Without case and surplus space."""
    return " ".join(text.casefold().split())


def score(row: Row, answer: str) -> Score:
    said = normal(answer)
    correct = (
        all(normal(check) in said for check in row.checks)
        if row.checks
        else said == normal(row.answer)
    )
    return Score(float(correct), token_f1(row.answer, answer))


def score_calls(row: Row, rendered: str, answer: str) -> Score:
    """Score an answer that has to call tools: by names and arguments as JSON values.

    `rendered` is the reference as the base's chat template writes it; both texts hold their
    control tokens. Words before the first call do not count, but the mark before it and what is
    written between and after the calls do: by them the engine knows a call. Where the template
    writes calls in a form of its own, not as JSON objects, the texts have to be equal.
    """
    wanted = find_calls(rendered)
    if not same_calls(row.calls, [found.call for found in wanted]):
        equal = " ".join(rendered.split()) == " ".join(answer.split())
        return Score(float(equal), token_f1(rendered, answer))
    made = find_calls(answer)
    calls = [found.call for found in made]
    words = str(row.messages[-1]["content"]).strip()
    first, *others = _around(rendered, wanted)
    mark = " ".join(first.replace(words, "", 1).strip().rpartition("\n")[2].split())
    correct = same_calls(row.calls, calls)
    if correct:
        before, *after = _around(answer, made)
        correct = " ".join(before.split()).endswith(mark) and sorted(
            map(str.split, after)
        ) == sorted(map(str.split, others))
    return Score(float(correct), overlap_of_calls(row.calls, calls))


def _around(text: str, calls: list[FoundCall]) -> list[str]:
    """Return what stands before the first call, between calls, and after the last one."""
    starts, ends = (
        [*(found.start for found in calls), len(text)],
        [0, *(found.end for found in calls)],
    )
    return [text[end:start] for end, start in zip(ends, starts, strict=True)]


def token_f1(reference: str, answer: str) -> float:
    """Harmonic mean of precision and recall over words."""
    expected, found = Counter(normal(reference).split()), Counter(normal(answer).split())
    shared = sum((expected & found).values())
    if not shared:
        return float(not expected and not found)
    precision, recall = shared / found.total(), shared / expected.total()
    return 2 * precision * recall / (precision + recall)
