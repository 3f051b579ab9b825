"""The `Modelfile` that makes an Ollama model of a GGUF file.

Ollama fills in a template of its own (Go's). What surrounds a question and an answer is read off
the base's chat template by rendering conversations with it; a chat template that puts texts
anywhere else has no such form.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from training.models.base_model import BaseModel

# Texts that no chat template writes itself.
_SYSTEM, _ASKED, _ANSWERED = "SYSTEM-TEXT-7f1c", "USER-TEXT-7f1c", "ASSISTANT-TEXT-7f1c"
_QUOTES = '"""'


@dataclass(frozen=True, slots=True)
class TurnTexts:
    """What a chat template writes around the texts of a conversation."""

    before_system: str
    after_system: str
    without_system: str  # instead of a system turn, where there is none
    before_question: str
    after_question: str  # and before the answer
    after_answer: str


def modelfile(base: BaseModel, gguf_name: str, *, context_tokens: int) -> tuple[str, str]:
    """Return (the file's text, a notice: empty, or what it lacks)."""
    lines = [f"FROM ./{gguf_name}", f"PARAMETER num_ctx {context_tokens}"]
    stops = [base.tokenizer.convert_ids_to_tokens(number) for number in sorted(base.stop_ids)]
    lines += [f'PARAMETER stop "{token}"' for token in stops]
    turns = turn_texts(base.tokenizer)
    template = ollama_template(turns) if turns else ""
    if turns is None or _QUOTES in template or "{{" in "".join(astuple(turns)):
        notice = (
            "The Modelfile has no TEMPLATE: the base's chat template has no form that Ollama's "
            "templates have. llama.cpp reads it from the GGUF file itself (llama-server --jinja)."
        )
        return "\n".join(lines) + "\n", notice
    return "\n".join([*lines, f"TEMPLATE {_QUOTES}{template}{_QUOTES}"]) + "\n", ""


def ollama_template(turns: TurnTexts) -> str:
    """Return Ollama's template of one turn; it puts the turns of a conversation after each other."""
    otherwise = f"{{{{ else }}}}{turns.without_system}" if turns.without_system else ""
    return (
        f"{{{{ if .System }}}}{turns.before_system}{{{{ .System }}}}{turns.after_system}{otherwise}"
        f"{{{{ end }}}}{turns.before_question}{{{{ .Prompt }}}}{turns.after_question}"
        f"{{{{ .Response }}}}{turns.after_answer}"
    )


def turn_texts(tokenizer: PreTrainedTokenizerBase) -> TurnTexts | None:
    """Read off what surrounds texts; None where conversations are not put together of such parts."""
    system = {"role": "system", "content": _SYSTEM}
    asked = {"role": "user", "content": _ASKED}
    answered = {"role": "assistant", "content": _ANSWERED}
    plain = _render(tokenizer, [asked], opened=True)
    led = _render(tokenizer, [system, asked], opened=True)
    done = _render(tokenizer, [asked, answered], opened=False)
    twice = _render(tokenizer, [system, asked, answered, asked], opened=True)
    if _ASKED not in plain or _SYSTEM not in led or _ANSWERED not in done:
        return None
    before_system, _, rest = led.partition(_SYSTEM)
    after_system, _, after_question = rest.partition(_ASKED)
    without_system = plain.partition(_ASKED)[0]
    after_answer = done.partition(_ANSWERED)[2]
    second_turn = twice.partition(_ANSWERED)[2].partition(_ASKED)[0]
    before_question = second_turn.removeprefix(after_answer)
    turns = TurnTexts(
        before_system,
        after_system.removesuffix(before_question),
        without_system.removesuffix(before_question),
        before_question,
        after_question,
        after_answer,
    )
    again = f"{before_question}{_ASKED}{after_question}"
    led_by = f"{turns.before_system}{_SYSTEM}{turns.after_system}"
    is_whole = (
        twice == f"{led_by}{again}{_ANSWERED}{after_answer}{again}"
        and plain == f"{turns.without_system}{again}"
    )
    return turns if is_whole else None


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, opened: bool
) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened)
        )
    except TemplateError:  # it has no such role
        return ""
