"""The phrases that incidents are told with, by signal and by kind of alert: data only."""

from __future__ import annotations

# Signal → (what a rise is, what a fall is). `{part}`: a category; `{words}`: of a topic.
WHAT = {
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
LANGUAGES = {
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
# What a figure is, for somebody who meets it here.
_LOGPROB = (
    "Negative log-probability: how unlikely the model itself finds the tokens of its answers, so "
    "that more is less certain."
)
_LATENCY = "p50 is the median; one request in twenty takes longer than p95."
GLOSSES = {
    "prompt_novelty": (
        "Out of distribution: farther from every topic than 95 % of the questions of the first "
        "two weeks."
    ),
    "logprob": _LOGPROB,
    "logprob_min": _LOGPROB,
    "ttft_ms": f"TTFT: time to the first token. {_LATENCY}",
    "time_per_token_ms": _LATENCY,
    "queue_ms": _LATENCY,
    "retrieval_ms": _LATENCY,
    "finish_reason": "`length` means that an answer was cut off at `max_tokens`.",
    "retrieval_score": "1 is the best score.",
}
BASELINE = "Baseline: days of the same kind (weekday or weekend) in the nine weeks before."
RECENT_BASELINE = "Baseline: two to four weeks earlier."
HOUR_BASELINE = "Baseline: the same hour of the days before."
# What the number of values counts; requests of all kinds where a signal is not here.
MEASURED = {
    "thumb_down": "ratings",
    "schema_failure": "requests that asked for JSON or a schema",
    "context_overlap": "requests that searched",
}
_READ = "Read the example answers{examples}"
EXPECTED = "mark it as expected (`whet alerts expected {alert}`)"
DECLARED = "declare it (`--declared {day}`)"  # in a replay there are no alerts
_BATCH = "open a review batch (a button on the alert's page in the console)"
ROLLBACK = "`whet rollout rollback {alias}` returns to the version before"
# Signal, or `signal down` and `signal up` where they differ → what to do first.
TO_DO = {
    "refusal": (
        f"{_READ}. If the refusals are wrong, {ROLLBACK}; to make training data of them, {_BATCH}."
    ),
    "completion_tokens": (
        f"{_READ} and check that the right adapter is live (`whet rollout show {{alias}}`). If it "
        f"is not, {ROLLBACK}."
    ),
    "finish_reason": (
        "For `length`, check `max_tokens` of the requests and whether answers got longer; for "
        "others, the engine's log."
    ),
    "schema_failure": (
        f"{_READ}: if a new version broke the format, {ROLLBACK}; if a client changed its schema, "
        "{expected}."
    ),
    "repetition": f"{_READ}. If a new version is the cause, {ROLLBACK}.",
    "empty": f"{_READ} and the engine's log; if a new version is the cause, {ROLLBACK}.",
    "logprob": (
        f"{_READ}: less certain answers are wrong more often. To know whether they are, {_BATCH}."
    ),
    "logprob_min": (
        f"{_READ}: less certain answers are wrong more often. To know whether they are, {_BATCH}."
    ),
    "language": (
        f"{_READ} in that language. If they are good, {{expected}}; otherwise {_BATCH}, "
        "from which the next training learns."
    ),
    "answer_language": f"{_READ}. If the model answers in the wrong language, {ROLLBACK}.",
    "prompt_novelty": (
        f"{_READ} to the new questions. If they are good, {{expected}}; otherwise {_BATCH}, "
        "from which the next training learns."
    ),
    "prompt_topics": (
        f"{_READ} of that topic. If they are good, {{expected}}; otherwise {_BATCH}, "
        "from which the next training learns."
    ),
    "prompt_tokens": (
        "Look at what clients send (a longer prompt template, pasted texts). If it is wanted, "
        "{expected}."
    ),
    "thumb_down": (
        f"Read the answers that were rated down{{examples}} and {_BATCH}; if a new version is "
        f"the cause, {ROLLBACK}."
    ),
    "thumb_given": "Check that the application still sends ratings (`POST /v1/feedback`).",
    "thumb_given up": "Nothing, unless one client rates in the name of its users.",
    "refusal down": (
        f"{_READ}: does the model answer what it ought to refuse? If a new version is the cause, "
        f"{ROLLBACK}."
    ),
    "logprob down": (
        f"{_READ}: answers that repeat a pattern are certain too. If they are good, {{expected}}."
    ),
    "language down": (
        "Ask which application or customer with questions in that language is gone. If it is "
        "meant to be, {expected}."
    ),
    "prompt_topics down": (
        "Ask which application or customer with such questions is gone. If it is meant to be, "
        "{expected}."
    ),
    "regenerated": f"{_READ} that users asked for again, and {_BATCH}.",
    "edited": f"{_READ} that users edited, and {_BATCH}.",
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
RETRIEVAL = (
    "Check the collection (`whet documents list`): a document may be missing or outdated. "
    "`whet drift gaps --alias {alias}` lists the subjects that need documents."
)
ADAPTER = (
    "Check that the adapter is applied (`whet doctor`, `whet adapters verify`); if not, {rollback}."
)
# What is wrong in one tenant alone is seldom the version's fault.
OF_PLACE = "Ask first what changed in {place}: its prompts, settings or users."
OTHER = f"{_READ}. If the change is wanted, {{expected}}; otherwise {_BATCH}."


# Kinds of alerts that days and hours do not open.
ALERTS = {
    "questions": "Recent questions differ from those that the live version started with.",
    "answers": "Recent answers differ from those that the live version started with.",
    "quality": "Users rate recent answers worse than those that the live version started with.",
    "service": "Answers come more slowly than when the live version started.",
    "errors": "More answers are wrong: reviewers say so of a random sample.",
    "adapter": "The live version answers as its base model does: its adapter has no effect.",
    "candidate": "The version on trial does worse than the live one at the same time.",
}
ALERT_PLACES = {
    "errors": "In a random sample of all answers of the alias.",
    "adapter": "In all scored answers of the live version.",
    "candidate": "In the answers of the version on trial.",
}
ALERT_TO_DO = {
    "errors": (
        f"{_READ} that were judged wrong. Retraining is asked for by itself; if a new version is "
        f"the cause, {ROLLBACK}."
    ),
    "adapter": (
        "Check that the adapter is applied (`whet doctor`, `whet adapters verify`); if not, "
        f"{ROLLBACK}."
    ),
    "candidate": (
        "Stop the trial with `whet rollout rollback {alias}`, or wait for its own verdict."
    ),
    "quality": (
        f"Read the answers that were rated down{{examples}} and {_BATCH}; if a new version is "
        f"the cause, {ROLLBACK}."
    ),
    "service": "Look at the load and the engine's queue; add a replica if the load is the cause.",
}
