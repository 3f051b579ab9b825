"""Decides which reviewed texts may be learned from. Pure: no database, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from whet.control_tokens import ControlTokens
from whet.conversation import Message, ToolCall
from whet.errors import InputError
from whet.json_types import Json

LENGTH = "length"  # finish reason of an answer that ended at its token limit
# Fields of a training row that become text for a model; others are names and numbers.
_TEXT_FIELDS = (
    "messages", "prompt", "completion", "chosen", "rejected", "conversations", "instruction",
    "input", "output", "system", "context", "tools", "text",
)  # fmt: skip
# What is wrong with an answer, in the words of the reviewing guide; the page has a key for each.
ERROR_LABELS = ("wrong fact", "outdated", "incomplete", "tone", "off topic", "unsafe")
_SPEAKERS = {"assistant": "the model", "user": "the user", "tool": "a tool"}


class CutAnswerError(InputError):
    """An answer that ended at its token limit was to be approved as it stands."""

    code = "answer_cut"


class LabelledApprovalError(InputError):
    """An answer was to be approved as right although a label says what is wrong with it."""

    code = "approve_labelled"


@dataclass(frozen=True, slots=True)
class ControlTokenFinding:
    """A control token in a text that would be learned."""

    token: str
    place: str  # the text that holds it, such as "message 2, of the user"

    @property
    def sentence(self) -> str:
        return (
            f"{self.place} holds the control token {self.token}, which training would read as a "
            "real one."
        )


def require_whole_answer(finish_reason: str | None, *, accept_cut: bool) -> None:
    """Raise CutAnswerError for an answer that ended at its token limit, unless it is accepted."""
    if finish_reason == LENGTH and not accept_cut:
        raise CutAnswerError(
            "The answer ended at its token limit (finish reason `length`), so it is probably "
            "incomplete, and a model that learns it learns to stop there.",
            hint="Write the rest and save it as an edit, or approve it knowingly: the button "
            "“Approve the cut answer”, `--accept-cut`, or `accept_cut: true` in the API.",
        )


def require_no_error_label(labels: Sequence[str], *, accept_labels: bool) -> None:
    """Raise LabelledApprovalError for an approval with a label of ERROR_LABELS."""
    named = [label for label in labels if label.strip() in ERROR_LABELS]
    if named and not accept_labels:
        raise LabelledApprovalError(
            f"The label “{named[0]}” says that the answer is wrong, and an approved answer is "
            "learned as right.",
            hint="Take the label off, write the right answer and save it as an edit, or approve "
            "it knowingly: the button “Approve with its label”, `--accept-labels`, or "
            "`accept_labels: true` in the API.",
        )


def question_control_token(
    control: ControlTokens, messages: Sequence[Message], passages: Sequence[str]
) -> ControlTokenFinding | None:
    """Find a control token in the conversation before the answer, or in a retrieved passage."""
    for position, message in enumerate(messages, start=1):
        if (token := control.find_json(message.as_chat())) is not None:
            speaker = _SPEAKERS.get(message.role, f"the role {message.role}")
            return ControlTokenFinding(token, f"Message {position}, of {speaker},")
    for position, passage in enumerate(passages, start=1):
        if (token := control.find(passage)) is not None:
            return ControlTokenFinding(token, f"Retrieved passage {position}")
    return None


def require_no_control_tokens(
    control: ControlTokens,
    *,
    messages: Sequence[Message],
    passages: Sequence[str],
    answer: str,
    calls: Sequence[ToolCall] = (),
    tools: Sequence[Mapping[str, Json]] = (),
    checks: Sequence[str],
    is_edit: bool,
) -> None:
    """Raise InputError when a control token is in what an example would hold."""
    found = question_control_token(control, messages, passages)
    if found is not None:
        raise InputError(found.sentence, hint="Reject or skip the conversation.")
    if (token := control.find_json(tools)) is not None:
        found = ControlTokenFinding(token, "The description of a tool")
        raise InputError(found.sentence, hint="Reject or skip the conversation.")
    if (token := control.find_json([call.as_chat() for call in calls])) is not None:
        hint = "Take it out of the call." if is_edit else "Take it out and save an edit."
        raise InputError(ControlTokenFinding(token, "A call of a tool").sentence, hint=hint)
    for name, texts in (("The answer", (answer,)), ("What every right answer contains", checks)):
        token = next(filter(None, map(control.find, texts)), None)
        if token is not None:
            hint = "Take it out of the text." if is_edit else "Take it out and save an edit."
            raise InputError(ControlTokenFinding(token, name).sentence, hint=hint)


def row_control_token(control: ControlTokens, row: Mapping[str, Json]) -> str | None:
    """Find a control token in the texts of a training row in any of the documented formats."""
    return control.find_json({name: row[name] for name in _TEXT_FIELDS if name in row})
