"""Names of columns: which ones are known, and which one a user probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

_LIKE = 0.8  # of the letters in common, from which a name is taken for a misspelling of another
# What logs, tracing tools and APIs call the columns that are watched here.
_OTHER_NAMES = {
    "timestamp": "time ts date datetime created created_at created_time createdat start_time starttime request_time event_time logged_at",
    "id": "request_id trace_id interaction_id message_id completion_id uuid",
    "user": "user_id userid end_user end_user_id customer customer_id user_hash username session_user",
    "alias": "model model_name deployment endpoint",
    "adapter": "adapter_name adapter_version model_version version lora lora_name checkpoint",
    "template": "prompt_template template_version prompt_version system_prompt_version",
    "route": "application app app_name service feature",
    "prompt": "prompt_text question query input input_text messages user_message request user_input instruction",
    "answer": "completion response output output_text response_text completion_text reply assistant assistant_message generation answer_text",
    "language": "lang prompt_language question_language input_language",
    "answer_language": "response_language output_language completion_language",
    "prompt_tokens": "input_tokens tokens_in n_prompt_tokens prompt_token_count usage_prompt_tokens",
    "completion_tokens": "output_tokens tokens_out n_completion_tokens completion_token_count generated_tokens usage_completion_tokens tokens",
    "ttft_ms": "ttft time_to_first_token time_to_first_token_ms first_token_ms first_token_latency",
    "time_per_token_ms": "tpot tpot_ms time_per_output_token time_per_output_token_ms itl itl_ms inter_token_latency",
    "queue_ms": "queue_time queue_time_ms time_in_queue",
    "logprob": "mean_logprob avg_logprob average_logprob mean_log_prob logprob_mean",
    "logprob_min": "min_logprob minimum_logprob",
    "refusal": "refused is_refusal refuses",
    "schema_failure": "schema_error invalid_json json_error broken_json parse_error format_error schema_valid",
    "repetition": "repetitive is_repetitive repeats looping",
    "empty": "is_empty empty_answer",
    "finish_reason": "stop_reason finish finish_type end_reason",
    "collection": "knowledge_base vector_store corpus collection_name",
    "documents": "collection_digest corpus_version index_version",
    "retrieval_score": "top_score passage_score similarity retrieval_similarity",
    "retrieval_gap": "score_gap top_score_gap",
    "retrieval_empty": "no_results zero_results retrieval_no_results",
    "retrieval_failed": "retrieval_error search_error",
    "retrieval_miss": "nothing_found retrieval_no_match",
    "retrieval_ms": "retrieval_latency retrieval_latency_ms search_ms retrieval_time_ms",
    "context_overlap": "groundedness overlap faithfulness",
    "thumb": "thumbs rating feedback feedback_score user_rating vote thumbs_up thumb_up thumbs_down thumb_down",
    "regenerated": "regenerate regeneration retried is_retry",
    "edited": "corrected correction is_edited edit",
    "embedding": "embeddings prompt_embedding question_embedding vector",
    "slice_": "tenant tenant_id customer_tier region country plan segment cohort",
}  # fmt: skip
# Shown where the name alone would not do: the values have to be changed too.
_CONVERTED = {
    "thumbs_down": "1 becomes -1", "thumb_down": "1 becomes -1", "schema_valid": "the other way round",
    "ttft": "in ms", "time_to_first_token": "in ms", "tpot": "in ms", "rating": "as -1, 0 or 1",
    "feedback_score": "as -1, 0 or 1", "user_rating": "as -1, 0 or 1",
    "correction": "as true or false",
}  # fmt: skip
_MEANT = {other: name for name, others in _OTHER_NAMES.items() for other in others.split()}
_KNOWN = [name for name in _OTHER_NAMES if not name.endswith("_")]


@dataclass(frozen=True, slots=True)
class UnreadColumn:
    """A column that is not read. `likely`: the name that was probably meant, or empty."""

    name: str
    likely: str = ""
    note: str = ""  # what its values have to become

    @property
    def sentence(self) -> str:
        """Say it with what to do."""
        if not self.likely:
            return f"`{self.name}` is not read."
        note = f" ({self.note})" if self.note else ""
        return f"`{self.name}` is not read; it is probably `{self.likely}`{note}."


def unread_columns(names: Iterable[object]) -> list[UnreadColumn]:
    """The columns of a table that are not read, in their order, each with its likely name.

    A name that the table has already is nobody's likely name.
    """
    given = [str(name) for name in names]
    taken = {name for name in given if is_read(name)}
    found = []
    for name in given:
        if name in taken:
            continue
        likely = _likely(name)
        if likely == "slice_":
            likely = f"slice_{_plain(name)}"
        usable = likely if likely not in taken and not _is_second_time(likely, taken) else ""
        found.append(UnreadColumn(name, usable, _CONVERTED.get(_plain(name), "") if usable else ""))
    return found


def is_read(name: str) -> bool:
    """Whether a column of this name is read."""
    prefixes = ("rate_", "value_", "category_", "slice_", "embedding_")
    own = any(name.startswith(prefix) and len(name) > len(prefix) for prefix in prefixes)
    return own or name in _KNOWN or name == "day"


def _is_second_time(likely: str, taken: set[str]) -> bool:
    return likely == "timestamp" and "day" in taken


def _likely(name: str) -> str:
    """The known name that `name` stands for; empty where none is near."""
    plain = _plain(name)
    if plain in _KNOWN:
        return plain
    if plain in _MEANT:
        return _MEANT[plain]
    # "usage.prompt_tokens" and "response.text" end with what they are.
    last = _plain(re.split(r"[.:/]", name)[-1])
    if last != plain and (found := last if last in _KNOWN else _MEANT.get(last, "")):
        return found
    near = difflib.get_close_matches(plain, [*_KNOWN, *_MEANT], n=1, cutoff=_LIKE)
    return _MEANT.get(near[0], near[0]) if near else ""


def _plain(name: str) -> str:
    """Lower case with underscores: `TTFT (ms)`, `ttftMs` and `ttft-ms` are one name."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", snake.lower()).strip("_")
