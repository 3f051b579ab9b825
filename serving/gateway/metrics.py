"""What Prometheus is told.

Labels come from fixed lists, so that nothing a client sends can make a new series.
"""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from serving.gateway.sse import Answer
from serving.retrieval.records import Outcome

ROUTES = ("chat", "completions", "responses", "embeddings")
STATUSES = ("complete", "cancelled", "error", "cut")
ARMS = ("stable", "candidate", "pinned", "exact", "base")
# From a mock's answer to the longest the gateway waits
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
# From a large GPU's small model to a laptop's
_PER_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 1, 2)


class Metrics:
    """One set per gateway process; with several workers, prometheus_client's shared files add them
    up.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        answers = Counter(
            "whet_gateway_answers",
            "Completions that were forwarded, by route, log status and arm of the rollout.",
            ["route", "status", "arm"],
            registry=self.registry,
        )
        ttft = Histogram(
            "whet_gateway_first_byte_seconds",
            "From the accepted request to the engine's first byte.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        duration = Histogram(
            "whet_gateway_duration_seconds",
            "From the accepted request to the last byte.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        retrievals = Counter(
            "whet_gateway_retrievals",
            "Searches for passages, by outcome.",
            ["outcome"],
            registry=self.registry,
        )
        self.embeddings = Counter(
            "whet_gateway_embeddings",
            "Requests for embeddings, by status; they are not in the interaction log.",
            ["status"],
            registry=self.registry,
        )
        self.embedded_tokens = Counter(
            "whet_gateway_embedded_tokens",
            "Tokens of texts that were embedded for applications.",
            registry=self.registry,
        )
        query_rewrites = Counter(
            "whet_gateway_query_rewrites",
            "Questions that the base made self-contained for a search, by outcome.",
            ["outcome"],
            registry=self.registry,
        )
        self.query_rewrites = {
            True: query_rewrites.labels("rewritten"), False: query_rewrites.labels("failed")
        }  # fmt: skip
        self.retrieval_duration = Histogram(
            "whet_gateway_retrieval_seconds",
            "Time of a search for passages, as the gateway waits for it.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.invalid_citations = Counter(
            "whet_gateway_invalid_citations",
            "Marks such as [7] in answers with retrieved passages that name none of them.",
            registry=self.registry,
        )
        self.time_per_token = Histogram(
            "whet_gateway_time_per_token_seconds",
            "Of streams: from one token to the next, on average over the answer.",
            buckets=_PER_TOKEN,
            registry=self.registry,
        )
        self.timeouts = Counter(
            "whet_gateway_timeouts",
            "Answers that took longer than they may and were cut.",
            registry=self.registry,
        )
        structured = Counter(
            "whet_gateway_structured",
            "Complete answers that had to be JSON, and tool calls, by whether they can be read as"
            " such.",
            ["valid"],
            registry=self.registry,
        )
        tokens = Counter(
            "whet_gateway_tokens", "Tokens the engine counted.", ["kind"], registry=self.registry
        )
        self._refused = Counter(
            "whet_gateway_refused",
            "Requests answered with an error before an engine was asked.",
            ["status"],
            registry=self.registry,
        )
        self.retries = Counter(
            "whet_gateway_retries",
            "Requests sent to an engine a second time, because the first connection broke.",
            registry=self.registry,
        )
        self.ratings = Counter("whet_gateway_ratings", "Ratings received.", registry=self.registry)
        self.rows = Counter(
            "whet_log_rows", "Log records that reached the database.", registry=self.registry
        )
        self.pending = Gauge(
            "whet_log_pending_bytes",
            "Log records on disk that wait for the database.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.unavailable = Gauge(
            "whet_log_unavailable",
            "1 while the log cannot keep records and requests are refused.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.in_flight = Gauge(
            "whet_gateway_in_flight",
            "Requests that an engine answers, or that wait for one.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.retrievals = {outcome: retrievals.labels(outcome) for outcome in Outcome}
        # Looked up once here: finding a child by its labels costs more than counting.
        self.answers = {
            (route, status, arm): answers.labels(route, status, arm)
            for route in ROUTES
            for status in STATUSES
            for arm in ARMS
        }
        self.ttft = {route: ttft.labels(route) for route in ROUTES}
        self.duration = {route: duration.labels(route) for route in ROUTES}
        self.structured = {True: structured.labels("yes"), False: structured.labels("no")}
        self.prompt_tokens = tokens.labels("prompt")
        self.completion_tokens = tokens.labels("completion")

    def count_answer(
        self,
        route: str,
        status: str,
        arm: str,
        answer: Answer,
        *,
        duration_ms: float,
        ttft_ms: float | None,
        is_stream: bool,
    ) -> None:
        """Count one request that was forwarded, when its row is written."""
        self.answers[route, status, arm].inc()
        self.duration[route].observe(duration_ms / 1000)
        if ttft_ms is not None:
            self.ttft[route].observe(ttft_ms / 1000)
        if answer.prompt_tokens:
            self.prompt_tokens.inc(answer.prompt_tokens)
        if answer.completion_tokens:
            self.completion_tokens.inc(answer.completion_tokens)
            if is_stream and ttft_ms is not None and answer.completion_tokens > 1:
                generating_s = (duration_ms - ttft_ms) / 1000
                self.time_per_token.observe(generating_s / (answer.completion_tokens - 1))

    def refused(self, status: int) -> None:
        self._refused.labels(str(status)).inc()

    def exposition(self) -> bytes:
        """The text that GET /metrics answers with."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        forget_dead_workers(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
        everybody = CollectorRegistry()
        multiprocess.MultiProcessCollector(everybody)  # type: ignore[no-untyped-call]
        return generate_latest(everybody)


def forget_dead_workers(folder: Path) -> None:
    """Remove the gauges of killed workers, whose requests in flight would be counted for ever.

    Their counters stay.
    """
    workers = {int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_live*_*.db")}
    for pid in workers:
        if not _is_alive(pid):
            multiprocess.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
