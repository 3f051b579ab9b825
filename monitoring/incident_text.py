"""An incident told to somebody who does not know the product, in six parts. Pure.

What happened, since when, how bad (from what to what, of how many), where, what quality did, and
what to do. Pages, commands and messages show the same six.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from whet.clock import iso

QUALITY_NOT_COMPARED = "Not compared yet; the scheduler does it within the hour."
_MOST_SIGNALS = 3  # besides the lead, in `how bad`
_MOST_PLACES = 3
_GROWN = 2.0  # times its share before, from which a topic tells where another change is
# Signal → (what a rise is, what a fall is). `{part}`: a category; `{words}`: of a topic.
_WHAT = {
    "prompt_tokens": ("Questions got longer.", "Questions got shorter."),
    "language": ("More questions are in {part}.", "Fewer questions are in {part}."),
    "prompt_novelty": (
        "Users ask about something that they did not ask about before{words}.",
        "Questions are closer to the usual topics than before.",
    ),
    "prompt_topics": (
        "Users ask more often about one topic{words}.",
        "Users ask less often about one topic{words}.",
    ),
    "retrieval_miss": ("More questions find no passage.", "More questions find a passage."),
    "retrieval_empty": ("More searches return nothing.", "Fewer searches return nothing."),
    "retrieval_failed": ("More searches fail.", "Fewer searches fail."),
    "retrieval_score": (
        "Retrieved passages fit the questions better.",
        "Retrieved passages fit the questions worse.",
    ),
    "retrieval_gap": (
        "The best passage stands out more from the second.",
        "The best passage stands out less from the second.",
    ),
    "retrieval_ms": ("Searches got slower.", "Searches got faster."),
    "completion_tokens": ("Answers got longer.", "Answers got shorter."),
    "finish_reason": (
        "More answers end with finish_reason={part}.",
        "Fewer answers end with finish_reason={part}.",
    ),
    "answer_language": ("More answers are in {part}.", "Fewer answers are in {part}."),
    "refusal": (
        "The model refuses more questions than before.",
        "The model refuses fewer questions than before.",
    ),
    "schema_failure": (
        "More answers break the JSON or schema that was asked for.",
        "Fewer answers break their schema.",
    ),
    "repetition": ("More answers repeat themselves.", "Fewer answers repeat themselves."),
    "empty": ("More answers are empty.", "Fewer answers are empty."),
    "logprob": (
        "The model is less certain of its answers.",
        "The model is more certain of its answers.",
    ),
    "logprob_min": (
        "Answers hold tokens that the model is less certain of.",
        "The least certain tokens of answers became more certain.",
    ),
    "context_overlap": (
        "Answers say more of what the passages say.",
        "Answers say less of what the passages say.",
    ),
    "thumb_given": ("Users rate more answers.", "Users rate fewer answers."),
    "thumb_down": ("Users rate more answers as bad.", "Users rate fewer answers as bad."),
    "regenerated": (
        "Users ask for another answer more often.",
        "Users ask for another answer less often.",
    ),
    "edited": ("Users edit more answers.", "Users edit fewer answers."),
    "ttft_ms": ("Answers start later.", "Answers start sooner."),
    "time_per_token_ms": ("Answers are written more slowly.", "Answers are written faster."),
    "queue_ms": ("Requests wait longer in the queue.", "Requests wait less in the queue."),
}
_LANGUAGES = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "pt": "Portuguese",
    "nl": "Dutch",
    "pl": "Polish",
    "sv": "Swedish",
    "da": "Danish",
    "tr": "Turkish",
    "ja": "Japanese",
    "ko": "Korean",
    "zh": "Chinese",
    "ru": "Russian",
    "ar": "Arabic",
    "he": "Hebrew",
    "hi": "Hindi",
    "th": "Thai",
    "el": "Greek",
    "unknown": "a language that was not recognised",
}
_NOVELTY = (
    "Out of distribution: farther from every topic than 95 % of the questions of the first two "
    "weeks with questions."
)
_READ = "Read the example answers"
_ROLLBACK = "`whet rollout rollback {alias}` returns to the version before"
# Signal (and direction, where it matters) → what to do first.
_TO_DO = {
    "refusal": (
        f"{_READ}. If the refusals are wrong, {_ROLLBACK}, and a review batch makes training data "
        "of them."
    ),
    "completion_tokens": (
        f"{_READ} and check that the right adapter is live (`whet rollout show {{alias}}`). If it "
        f"is not, {_ROLLBACK}."
    ),
    "finish_reason": (
        "For `length`, check `max_tokens` of the requests and whether answers got longer; for "
        "others, the engine's log."
    ),
    "schema_failure": (
        f"{_READ}: if a new version broke the format, {_ROLLBACK}; if a client changed its schema, "
        "mark it as expected (`whet alerts expected ID`)."
    ),
    "repetition": f"{_READ}. If they go round in circles, {_ROLLBACK}.",
    "empty": f"{_READ} and the engine's log; if a new version is the cause, {_ROLLBACK}.",
    "logprob": (
        f"{_READ} and the questions: less certain answers are wrong more often. A review batch "
        "tells whether they are."
    ),
    "logprob_min": (
        f"{_READ} and the questions: less certain answers are wrong more often. A review batch "
        "tells whether they are."
    ),
    "language": (
        f"{_READ} in that language. If they are good, mark it as expected (`whet alerts expected "
        "ID`); else review them and retrain."
    ),
    "answer_language": f"{_READ}. If the model answers in the wrong language, {_ROLLBACK}.",
    "prompt_novelty": (
        f"{_READ} to the new questions. If they are good, mark it as expected (`whet alerts "
        "expected ID`); else review them and retrain."
    ),
    "prompt_topics": (
        f"{_READ} of that topic. If they are good, mark it as expected (`whet alerts expected "
        "ID`); else review them and retrain."
    ),
    "prompt_tokens": (
        "Look at what clients send (a longer prompt template, pasted texts). If it is wanted, "
        "mark it as expected (`whet alerts expected ID`)."
    ),
    "thumb_down": (
        "Read the answers that were rated down and open a review batch; if a new version is the "
        f"cause, {_ROLLBACK}."
    ),
    "thumb_given": "Check that the application still sends ratings (`POST /v1/feedback`).",
    "regenerated": f"{_READ} that users asked for again and open a review batch.",
    "edited": f"{_READ} that users edited and open a review batch.",
    "ttft_ms": (
        "Look at the load, the length of prompts and the engine's queue; add a replica if the "
        "load is the cause."
    ),
    "time_per_token_ms": "Look at the load and the GPU; add a replica if the load is the cause.",
    "queue_ms": "The engine has more to do than it can: add a replica or limit clients.",
    "retrieval_ms": (
        "Look at the size of the collections and the load of the machine that searches."
    ),
}
_RETRIEVAL = (
    "Check the collection (`whet documents list`): a document may be missing or outdated. "
    "Questions without documents need new ones."
)
_ADAPTER = (
    "Check that the adapter is applied (`whet doctor`, `whet adapters verify`); if not, {rollback}."
)
# What is wrong in one tenant alone is seldom the version's fault.
_OF_PLACE = "Ask first what changed in {place}: its prompts, settings or users."
_OTHER = (
    f"{_READ}. If the change is wanted, mark it as expected (`whet alerts expected ID`); else "
    "review them."
)


# Kinds of alerts that days and hours do not open.
_ALERTS = {
    "questions": "Recent questions differ from those that the live version started with.",
    "answers": "Recent answers differ from those that the live version started with.",
    "quality": "Users rate recent answers worse than those that the live version started with.",
    "service": "Answers come more slowly than when the live version started.",
    "errors": "More answers are wrong: reviewers say so of a random sample.",
    "adapter": "The live version answers as its base model does: its adapter has no effect.",
    "candidate": "The version on trial does worse than the live one at the same time.",
}
_ALERT_PLACES = {
    "errors": "In a random sample of all answers of the alias.",
    "adapter": "In all scored answers of the live version.",
    "candidate": "In the answers of the version on trial.",
}
_ALERT_TO_DO = {
    "errors": (
        f"{_READ} that were judged wrong. Retraining is asked for by itself; if a new version is "
        f"the cause, {_ROLLBACK}."
    ),
    "adapter": (
        "Check that the adapter is applied (`whet doctor`, `whet adapters verify`); if not, "
        f"{_ROLLBACK}."
    ),
    "candidate": (
        "Stop the trial with `whet rollout rollback {alias}`, or wait for its own verdict."
    ),
    "quality": (
        "Read the answers that were rated down and open a review batch; if a new version is the "
        f"cause, {_ROLLBACK}."
    ),
    "service": "Look at the load and the engine's queue; add a replica if the load is the cause.",
}


@dataclass(frozen=True, slots=True)
class IncidentText:
    """The six parts, each a sentence or some."""

    what: str
    since: str
    how_bad: str
    where: str
    quality: str
    to_do: str

    def rows(self) -> list[tuple[str, str]]:
        """(name of the part, text) in the order in which they are read."""
        return [
            ("What", self.what),
            ("Quality", self.quality),
            ("Since", self.since),
            ("How bad", self.how_bad),
            ("Where", self.where),
            ("To do", self.to_do),
        ]

    def as_text(self) -> str:
        return "\n".join(f"{name}: {text}" for name, text in self.rows())

    def as_json(self) -> dict[str, str]:
        return {
            "what": self.what,
            "quality": self.quality,
            "since": self.since,
            "how_bad": self.how_bad,
            "where": self.where,
            "to_do": self.to_do,
        }


def describe_incident(
    found: Mapping[str, Any], quality: Mapping[str, Any] | None = None
) -> IncidentText:
    """Tell an incident of days or hours. `found`: as JSON; `quality`: of `Quality.as_json`."""
    lead = found["evidence"][0]
    alias = found["alias"]
    return IncidentText(
        what=_what(found, lead),
        since=_since(found),
        how_bad=_how_bad(found["evidence"], _place_names(found)),
        where=_where(found),
        quality=(quality or {}).get("sentence") or QUALITY_NOT_COMPARED,
        to_do=_to_do(found, lead, alias),
    )


def text_of_alert(alert: Mapping[str, Any]) -> IncidentText:
    """Tell an alert, whatever opened it: days and hours, two windows, the audit, a version."""
    detail = alert["detail"] or {}
    quality = detail.get("quality")
    by_day = detail.get("incident")
    if by_day and by_day.get("evidence"):
        told = describe_incident({**by_day, "alias": alert["alias"]}, quality)
        return replace(told, to_do=told.to_do.replace("expected ID`", f"expected {alert['id']}`"))
    kind, alias = alert["kind"], alert["alias"]
    sentences = [one["sentence"] for one in detail.get("signals", []) if one.get("sentence")]
    title = alert["title"].removeprefix(f"{alias}: ")
    began = iso(detail.get("since_at") or alert["opened_at"])
    least = "" if detail.get("since_is_exact") else "at the latest "
    return IncidentText(
        what=_ALERTS.get(kind, f"{title.partition('. ')[0].rstrip('.')}."),
        since=f"{least}{began}, found {iso(alert['opened_at'])}.",
        how_bad=" ".join(sentences[:_MOST_SIGNALS]) or title,
        where=_ALERT_PLACES.get(kind, "Not known: two samples of requests were compared."),
        quality=(quality or {}).get("sentence") or QUALITY_NOT_COMPARED,
        to_do=_ALERT_TO_DO.get(kind, _OTHER).format(alias=alias),
    )


def _what(found: Mapping[str, Any], lead: Mapping[str, Any]) -> str:
    if found.get("hint"):
        return "Answers changed in several ways on one day: the adapter may not be applied."
    pair = _WHAT.get(lead["signal"])
    if pair is None:
        moved = "rose" if lead["direction"] == "up" else "fell"
        part = f" {lead['part']}" if lead["part"] else ""
        return f"{lead.get('label', lead['signal'])}{part} {moved}."
    words = _topic_words(found, lead)
    text = pair[0 if lead["direction"] == "up" else 1]
    part = _LANGUAGES.get(lead["part"], lead["part"])
    told = text.format(part=part, words=f": “{words}”" if words else "")
    is_there = lead.get("slice") and lead["slice"] in _place_names(found)
    return f"{told.rstrip('.')} in {lead['slice']}." if is_there else told


def _topic_words(found: Mapping[str, Any], lead: Mapping[str, Any]) -> str:
    """The words of the topic that the incident is about."""
    names = found.get("topic_names", {})
    if lead["signal"] == "prompt_topics" and names.get(lead["part"]):
        return ", ".join(names[lead["part"]])
    if lead["signal"] not in ("prompt_novelty", "prompt_topics"):
        return ""
    return next((", ".join(one["words"]) for one in found.get("topics", []) if one["words"]), "")


def _since(found: Mapping[str, Any]) -> str:
    if found.get("first_hour"):
        first, at = _moment(found["first_hour"]), _moment(found["detected_at"])
        return f"{first} UTC, found at {at} UTC."
    closed = f", over on {found['closed_on']}" if found.get("closed_on") else ""
    return f"{found['first_day']}, found at the end of {found['detected_on']}{closed}."


def _moment(text: str) -> str:
    return text.replace("T", " ").removesuffix("Z")


def _place_names(found: Mapping[str, Any]) -> list[str]:
    return [f"{one['column']}={one['value']}" for one in found.get("slices", [])[:_MOST_PLACES]]


def _how_bad(evidence: Sequence[Mapping[str, Any]], places: Collection[str]) -> str:
    """The lead, the same number of the slice or of all requests, then one of each other signal."""
    lead = evidence[0]
    unit = "ratings" if lead["signal"] == "thumb_down" else "requests"
    count = f" Measured on {lead['n']:,} sampled {unit}." if lead.get("n") else ""
    shown = [f"{_without_since(lead)}{count}"]
    counterparts = [one for one in evidence[1:] if _is_counterpart(one, lead, places)]
    for one in counterparts[:1]:
        all_of = "" if one.get("slice") else "Of all requests: "
        shown.append(f"{all_of}{_without_since(one)}")
    others = {one["signal"]: one for one in reversed(evidence) if one["signal"] != lead["signal"]}
    in_order = [one for one in evidence if one is others.get(one["signal"])]
    shown += [_without_since(one) for one in in_order[:_MOST_SIGNALS]]
    if lead["signal"] == "prompt_novelty":
        shown.append(_NOVELTY)
    return " ".join(shown)


def _is_counterpart(
    one: Mapping[str, Any], lead: Mapping[str, Any], places: Collection[str]
) -> bool:
    """Whether it is the lead's number in the slice that is named, or of all requests."""
    same = all(one.get(key) == lead.get(key) for key in ("signal", "adapter"))
    # Slices have no chart of the 95 % quantile; their median stands for it.
    same = same and (one.get("part") == lead.get("part") or "p50" in (one["part"], lead["part"]))
    if lead.get("slice"):
        return same and not one.get("slice")
    return same and one.get("slice") in places


def _without_since(one: Mapping[str, Any]) -> str:
    """The sentence without the day, which stands in its own part."""
    return str(one["sentence"]).replace(f", since {one['first_day']}", "")


def _where(found: Mapping[str, Any]) -> str:
    cause = (found.get("cause") or {}).get("sentence", "")
    lead = found["evidence"][0]
    version = f" Version {lead['adapter']} answered." if lead.get("adapter") else ""
    if "slices" not in found:
        return f"{cause} Not known: no conversations of it are kept.{version}".strip()
    places = [
        f"{one['column']}={one['value']} ({_percent(one['share_now'])} of the requests, "
        f"{_percent(min(1.0, one['share_of_change']))} of the change)"
        for one in found["slices"][:_MOST_PLACES]
    ]
    if places:
        return f"{cause} In {'; '.join(places)}.{version}".strip()
    topics = [
        f"“{', '.join(one['words'])}” ({_percent(one['share_now'])} of the requests, "
        f"{_percent(one['share_before'])} before)"
        for one in found.get("topics", [])[:_MOST_PLACES]
        if one["words"] and _tells(one, lead)
    ]
    if topics:
        noun = "topics" if len(topics) > 1 else "topic"
        return f"{cause} In the {noun} {'; '.join(topics)}.{version}".strip()
    seen_in = f" Seen first in {lead['slice']}." if lead.get("slice") else ""
    return (
        f"{cause} Everywhere: no language, route, version or other slice carries more of it than "
        f"its share of the requests.{seen_in}{version}"
    ).strip()


def _tells(topic: Mapping[str, Any], lead: Mapping[str, Any]) -> bool:
    """Whether a topic is where the change is, and did not merely grow a little beside it."""
    is_about_topics = lead["signal"] in ("prompt_novelty", "prompt_topics")
    has_grown = topic["share_now"] >= _GROWN * topic["share_before"]
    return bool(topic.get("share_of_change")) or is_about_topics or has_grown


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.1f} %" if 0 < percent < 9.95 else f"{percent:.0f} %"


def _to_do(found: Mapping[str, Any], lead: Mapping[str, Any], alias: str) -> str:
    signal = lead["signal"]
    if found.get("hint"):
        return _ADAPTER.format(rollback=_ROLLBACK.format(alias=alias))
    if signal == "context_overlap" or (
        signal.startswith("retrieval_") and signal != "retrieval_ms"
    ):
        return _RETRIEVAL
    told = _TO_DO.get(signal, _OTHER).format(alias=alias)
    places = [one for one in _place_names(found) if one.startswith(("route=", "slice_"))]
    return f"{_OF_PLACE.format(place=places[0])} {told}" if places else told
