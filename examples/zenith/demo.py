"""`whet demo`: the whole circle on the Zenith scenario, with measured numbers, and a report at the
end.

The story drives the product from outside: an OpenAI client, the command line, and the console's
HTTP interface. What it compresses is said where it happens and again in the report (`COMPRESSED`).
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from examples.zenith.policy import write_policy
from examples.zenith.scenario import (
    World,
    affected,
    held_out,
    judging_rows,
    look_up,
    new_world,
    old_world,
    traffic,
    training_examples,
)
from examples.zenith.story.client import Answer, Application, Ledger, Question, Traffic, live_score
from examples.zenith.story.product import Product, wait_for
from examples.zenith.story.report import write_report
from examples.zenith.story.reviewer import PolicyReviewer
from whet.cli import err, out
from whet.errors import ProcessError
from whet.settings import load_settings

ALIAS = "support"
POLICY = "policy"  # the collection of the new policy's pages
TRAINING_ROWS = 500
# What the gate judges by: held-out wordings too, other questions than those that the story scores
# with
JUDGING_ROWS = 140
# Requests per second while something trains or is scored on the same two cores, and otherwise: an
# answer costs the CPU engine more than a second of one.
QUIET_RATE, BUSY_RATE = 0.3, 4.5
# Of v1 on the old world, before it changes: what the drift run compares with
REFERENCE_ANSWERS = 130
CHANGED_ANSWERS = 330  # on the changed world, before monitoring is asked
# Reviewed, before retraining: with 300, one v2 in three had fewer than 95 % of the new questions
# right
ENOUGH_EXAMPLES = 360
# Of these, as many must be in the next version: of answers to the same question only the newest is.
NEW_EXAMPLES = 320
SHARE_AFFECTED = 0.75  # of the traffic after the change: people ask about what is new

# The product's own settings, shortened so that days fit into minutes; everything else is the
# default.
COMPRESSED = {
    "WHET_DRIFT_INTERVAL_S": ("8", "a drift run every 8 seconds instead of every hour"),
    "WHET_DRIFT_WINDOW": ("120", "windows of 120 conversations instead of 2,000"),
    "WHET_FLAG_INTERVAL_S": ("3", "flagging every 3 seconds instead of every minute"),
    "WHET_REVIEW_BUDGET": ("600", "600 conversations for review a day instead of 200"),
    "WHET_SCHEDULER_TICK_S": ("2", "the retraining policy looked at every 2 seconds instead of 30"),
    "WHET_WORKER_POLL_S": ("1", "the worker looks for requests every second instead of every 5"),
    "WHET_RETRAIN_MIN_EXAMPLES": (
        str(NEW_EXAMPLES),
        (
            f"retraining after {NEW_EXAMPLES} new reviewed examples instead of 100: this model is"
            " tiny, and learns a fact from many sightings"
        ),
    ),
    "WHET_RETRAIN_QUIET_S": (
        "3",
        "a review counts as over 3 seconds after its last decision instead of 10 minutes",
    ),
    "WHET_ENGINE_MAX_LORA_RANK": (
        "32",
        (
            "an engine for adapters up to rank 32 instead of 64: it computes with the largest rank"
            " it is open to"
        ),
    ),
    "WHET_RETRAIN_COOLDOWN_S": ("0", "no day's wait between two trainings"),
    "WHET_ROLLOUT_STEPS": ("0.5,1.0", "a rollout in shares of 50 and 100 %"),
    "WHET_ROLLOUT_MIN_REQUESTS": (
        "12",
        (
            "12 candidate answers a rollout step instead of 200: enough to catch a broken version,"
            " not a slightly worse one"
        ),
    ),
}


@dataclass
class Story:
    """What the demo has learned so far; becomes report.json."""

    ledger: Ledger = field(default_factory=Ledger)
    stages: list[dict[str, Any]] = field(default_factory=list)
    accuracy: dict[str, float] = field(default_factory=dict)
    n: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    marks: list[tuple[float, str]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        with err.status(f"{name} …"):
            yield
        seconds = time.monotonic() - began
        self.stages.append({"name": name, "seconds": round(seconds, 1)})
        out.print(f"[green]✓[/green] {name} [dim]({seconds:.0f} s)[/dim]")

    def mark(self, what: str) -> None:
        self.marks.append((time.time(), what))

    def score(self, name: str, answers: list[Answer]) -> None:
        self.n[name] = len(answers)
        self.accuracy[name] = round(
            sum(answer.right for answer in answers) / max(1, len(answers)), 4
        )
        out.print(
            f"    {name}: [bold]{self.accuracy[name]:.1%}[/bold] of {len(answers)} held-out"
            " questions right"
        )


def demo(
    seed: int = typer.Option(7, help="Seed of the data, the traffic and the training."),
    questions: int = typer.Option(200, min=20, help="Held-out questions per score."),
    keep_running: bool = typer.Option(
        False, help="Leave the product running at the end, until Ctrl-C."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON at the end."),
) -> None:
    """Run the complete circle on the built-in scenario and leave a report."""
    folder = load_settings().home / "demo"
    home = folder / "home"
    if home.exists():
        shutil.rmtree(home)  # an earlier demo's state; its report stays until this one replaces it
    home.mkdir(parents=True)
    story = Story()
    product = Product(home, {name: value for name, (value, _) in COMPRESSED.items()})
    began = time.monotonic()
    # As Ctrl-C: the product that was started here ends too
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        _tell(story, product, folder, seed=seed, questions=questions)
        story.facts["total_seconds"] = round(time.monotonic() - began, 1)
        report = write_report(folder, story, COMPRESSED)
        _print_summary(story, folder)
        if as_json:
            print(json.dumps(report))  # noqa: T201
        if keep_running:
            out.print(
                f"The product is running: {product.console} (user admin, password in"
                f" {home / 'admin.password'}). Ctrl-C stops it."
            )
            wait_for(lambda: False, "Ctrl-C", timeout_s=7 * 24 * 3600)
    finally:
        product.stop()
        signal.signal(signal.SIGTERM, before)
    if story.ledger.failures:
        raise ProcessError(
            f"{len(story.ledger.failures)} requests failed; the first: {story.ledger.failures[0]}"
        )
    if story.facts["log_rows"] != story.facts["responses_received"]:
        raise ProcessError(
            f"{story.facts['responses_received']} responses were received and"
            f" {story.facts['log_rows']} rows were logged; expected the same number."
        )


def _tell(story: Story, product: Product, folder: Path, *, seed: int, questions: int) -> None:
    old, new = old_world(), new_world()
    old_questions = _questions("old", questions, seed)
    new_questions = _questions("new", questions, seed)

    with story.stage("1 · Engine up on the base model"):
        product.start(timeout_s=420)
    ask = _Scorer(product, story)
    with story.stage("1 · The base's score on held-out questions"):
        story.score("base_old", ask(old_questions[: questions // 2], "base"))

    background = Traffic(
        product.gateway,
        product.key,
        story.ledger,
        _source(old, seed),
        model="base",
        rate=QUIET_RATE,
        seed=seed,
    )
    background.start()
    try:
        _first_version(story, product, ask, old, old_questions, folder, seed)
        changed_at = _world_changes(story, product, ask, background, new, new_questions, seed)
        _add_documents(story, product, ask, new, [old_questions, new_questions], folder)
        live_at = _people_correct(story, product, background, new)
        wait_for(
            lambda: live_score(story.ledger.answers, live_at)[1] >= 40,
            "answers of v2 in live traffic",
            timeout_s=60,
        )
        background.rate = QUIET_RATE
        with story.stage("5 · v2's scores"):
            # together: the engine answers more at once
            answers = ask([*old_questions, *new_questions], f"{ALIAS}@v2")
            story.score("v2_old", [answer for answer in answers if answer.kind == "old"])
            story.score("v2_new", [answer for answer in answers if answer.kind == "new"])
        with story.stage("5 · v2's scores with the documents"):
            _score_with_documents(story, ask, "v2", [old_questions, new_questions])
        story.facts["live_score"] = {
            "v1_before": live_score(_traffic(story), 0, changed_at),
            "v1_after": live_score(_traffic(story), changed_at, story.facts["first_correction_at"]),
            "v2": live_score(_traffic(story), live_at),
        }
    finally:
        background.stop()

    with story.stage("6 · Counting rows, tracing one answer"):
        received = len(story.ledger.answers)
        wait_for(
            lambda: _log_rows(product) >= received, "every row to reach the database", timeout_s=60
        )
        story.facts |= {"responses_received": received, "log_rows": _log_rows(product)}
        newest = next(
            answer
            for answer in reversed(_traffic(story))
            if answer.adapter == f"{ALIAS}@v2" and answer.kind == "new"
        )
        story.facts["trace"] = {
            "of": newest.interaction_id,
            "tree": product.run("trace", newest.interaction_id),
        }
        story.facts["drift_reports"] = product.run("drift", "list")


def _first_version(
    story: Story,
    product: Product,
    ask: _Scorer,
    old: World,
    held: list[Question],
    folder: Path,
    seed: int,
) -> None:
    data, judging = folder / "train_old.jsonl", folder / "judge_old.jsonl"
    for file, rows in (
        (data, training_examples(old, TRAINING_ROWS, seed)),
        (judging, judging_rows(JUDGING_ROWS, seed)),
    ):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with story.stage("2 · support@v1 trained from 500 examples, judged and stored"):
        run = product.run(
            "train", "run", str(data), "--test", str(judging), "--alias", ALIAS, "--seed", str(seed)
        )
        story.facts["v1_run"] = run
    with story.stage("2 · Parity proved by the engine, promoted"):
        product.run("rollout", "promote", ALIAS, f"{ALIAS}@v1")
        wait_for(
            lambda: _answers_as(ask, held[:1], f"{ALIAS}@v1"), "support@v1 to answer", timeout_s=60
        )
        story.facts["v1_parity"] = _parity(product, "v1")
    story.mark("v1 live")
    with story.stage("2 · v1's score on held-out questions"):
        story.score("v1_old", ask(held, f"{ALIAS}@v1"))


def _world_changes(
    story: Story,
    product: Product,
    ask: _Scorer,
    background: Traffic,
    new: World,
    held: list[Question],
    seed: int,
) -> float:
    with story.stage(f"3 · Traffic to `{ALIAS}` in the old world"):
        background.model, background.rate = ALIAS, BUSY_RATE
        _wait_for_traffic(story, REFERENCE_ANSWERS, time.time())
    changed_at = time.time()
    story.mark("the world changes")
    background.source = _source(new, seed, SHARE_AFFECTED)
    with story.stage("3 · The world changes: a new product line, a changed warranty policy"):
        _wait_for_traffic(story, CHANGED_ANSWERS, changed_at)
    with story.stage("3 · Monitoring raises an alert"):
        alerts = wait_for(
            lambda: product.look("/api/alerts", alias=ALIAS), "an alert", timeout_s=90
        )
        story.facts["alerts"] = alerts
        story.mark("alert")
        out.print(f"    [bold]{alerts[0]['title']}[/bold]", highlight=False)
    with story.stage("3 · The review queue fills with what drift and unhappy ratings pointed at"):
        wait_for(
            lambda: product.look("/api/review/stats")["waiting"] >= ENOUGH_EXAMPLES,
            f"{ENOUGH_EXAMPLES} conversations in the queue",
            timeout_s=120,
        )
    background.rate = QUIET_RATE
    with story.stage("3 · v1's score on the changed world"):
        story.score("v1_new", ask(held[: len(held) // 2], f"{ALIAS}@v1"))
    return changed_at


def _add_documents(
    story: Story,
    product: Product,
    ask: _Scorer,
    new: World,
    held: list[list[Question]],
    folder: Path,
) -> None:
    """What retrieval does at once. Only these questions are asked with it: the traffic goes on
    without, so that what people correct is what they would have corrected."""
    pages = folder / POLICY
    with story.stage("3 · The new policy is added as documents"):
        story.facts["documents"] = write_policy(pages, new)
        product.run("documents", "add", POLICY, str(pages))
        story.mark("documents")
    with story.stage("3 · The base's score on the changed world, and v1's with the documents"):
        story.score("base_new", ask(held[1][: len(held[1]) // 4], "base"))
        _score_with_documents(story, ask, "v1", held)


def _score_with_documents(
    story: Story, ask: _Scorer, version: str, held: list[list[Question]]
) -> None:
    """Score half of the old and of the new questions, each with the passage that is found for it."""
    asked = [question for some in held for question in some[: len(some) // 2]]
    answers = ask(asked, f"{ALIAS}@{version}", POLICY)
    for kind in ("old", "new"):
        story.score(f"{version}_documents_{kind}", [each for each in answers if each.kind == kind])


def _people_correct(story: Story, product: Product, background: Traffic, new: World) -> float:
    password = secrets.token_urlsafe(16)
    product.run_plain(
        "users",
        "add",
        "policy-lookup-script",
        "--role",
        "reviewer",
        "--password-stdin",
        given=password + "\n",
    )
    reviewer = PolicyReviewer(product.console, "policy-lookup-script", password, new)
    first_at = time.time()
    story.facts["first_correction_at"] = first_at
    story.mark("first correction")
    with story.stage(
        "4 · Corrections through the review interface (the reviewer here is a script that looks the"
        " policy up)"
    ):
        deadline = time.monotonic() + 120
        while reviewer.tally.examples < ENOUGH_EXAMPLES and time.monotonic() < deadline:
            if not reviewer.review_next():
                time.sleep(0.5)
        story.facts["reviewer"] = {
            "approved": reviewer.tally.approved,
            "edited": reviewer.tally.edited,
            "skipped": reviewer.tally.skipped,
            "is_a_script": True,
        }
        reviewer.close()
        out.print(
            f"    {reviewer.tally.approved} approved, {reviewer.tally.edited} edited,"
            f" {reviewer.tally.skipped} skipped"
        )
    with story.stage(
        "5 · The policy asks, the worker trains v2 from old and new examples, the gate judges"
    ):
        run = wait_for(lambda: _finished_run(product), "v2 to be trained", timeout_s=300)
        story.facts["v2_run"] = product.run("train", "show", run["id"])
        story.mark("v2 trained")
        _respect_the_gate(story, product)
    background.rate = BUSY_RATE
    with story.stage("5 · v2 gets a share of the traffic, then all of it"):
        live = wait_for(lambda: _live_v2(product), "v2 to be live", timeout_s=180)
        story.facts["rollout"] = product.run("rollout", "show", ALIAS)
        story.facts["v2_parity"] = _parity(product, "v2")
    live_at = live / 1000
    story.facts["correction_to_live_seconds"] = round(live_at - first_at, 1)
    story.marks.append((live_at, "v2 live"))
    return live_at


def _respect_the_gate(story: Story, product: Product) -> None:
    """A pass goes on by itself.

    Where the gate cannot tell, an operator (here the script, and it is said) tries v2 on a share,
    which is what the verdict asks for. A failed gate ends the story: nothing of it goes live.
    """
    judged = story.facts["v2_run"]["evaluations"][0]
    story.facts["gate"] = {"verdict": judged["verdict"], "reason": judged["reason"]}
    out.print(f"    gate: [bold]{judged['verdict']}[/bold]. {judged['reason']}")
    if judged["verdict"] == "fail":
        raise ProcessError(
            f"v2 did not pass its gate and is not served: {judged['reason']}",
            hint="`whet eval compare` shows the answers. Another --seed gives another story.",
        )
    if judged["verdict"] == "inconclusive":
        out.print(
            "    The gate cannot tell, so a person decides: the script, as operator, tries v2 on a"
            " share of the traffic."
        )
        product.run(
            "rollout",
            "start",
            ALIAS,
            f"{ALIAS}@v2",
            "--share",
            "0.25",
            "--reason",
            "the gate could not tell; tried on a share",
        )


class _Scorer:
    """Scores a list of questions with one model name, through the gateway."""

    def __init__(self, product: Product, story: Story) -> None:
        self._product, self._story = product, story

    def __call__(
        self, questions: list[Question], model: str, collection: str | None = None
    ) -> list[Answer]:
        async def run() -> list[Answer]:
            application = Application(self._product.gateway, self._product.key, self._story.ledger)
            try:
                return await application.score(questions, model, collection=collection)
            finally:
                await application.close()

        return asyncio.run(run())


def _questions(kind: str, n: int, seed: int) -> list[Question]:
    return [Question(row["messages"], row["expected"], kind) for row in held_out(kind, n, seed)]


def _source(world: World, seed: int, share_affected: float | None = None) -> Callable[[], Question]:
    """Endless questions of the world's customers, with the facts that the policy of that world asks
    for.
    """
    texts = traffic(world, random.Random(f"traffic-{seed}-{share_affected}"), share_affected)

    def draw() -> Question:
        text = next(texts)
        expected = look_up(text, world)
        if expected is None:
            raise ProcessError(f"The scenario cannot look up its own question {text!r}.")
        product = world.product(expected["product"])
        kind = "new" if product is None or affected(product) else "old"
        return Question([{"role": "user", "content": text}], expected, kind)

    return draw


def _traffic(story: Story) -> list[Answer]:
    return [answer for answer in story.ledger.answers if answer.model == ALIAS]


def _wait_for_traffic(story: Story, wanted: int, since: float) -> None:
    wait_for(
        lambda: live_score(_traffic(story), since)[1] >= wanted,
        f"{wanted} answers in live traffic",
        timeout_s=240,
    )


def _answers_as(ask: _Scorer, questions: list[Question], model: str) -> bool:
    return bool(ask(questions, model))


def _log_rows(product: Product) -> int:
    return int(product.run("status")["traffic"]["last_hour"])  # the story takes minutes


def _parity(product: Product, version: str) -> Any:
    """What each engine measured against the trainer's log-probabilities before it served the
    version.
    """
    return product.run("adapters", "show", f"{ALIAS}@{version}")["served_by"]


def _finished_run(product: Product) -> dict[str, Any] | None:
    runs = [run for run in product.look("/api/runs") if run.get("request_id")]
    for run in runs:
        if run["state"] in ("failed", "cancelled"):
            raise ProcessError(f"The retraining run {run['id']} {run['state']}: {run.get('error')}")
        if run["state"] == "succeeded":
            return run
    return None


def _live_v2(product: Product) -> int | None:
    """When v2 became what `support` means, in ms; None while it is not."""
    current = product.look("/api/rollouts", alias=ALIAS)[0]
    if current["state"] == "rolled_back":
        raise ProcessError(f"v2 was rolled back: {current['reason']}")
    return (
        int(current["created_at"])
        if current["stable"] == f"{ALIAS}@v2" and not current["candidate"]
        else None
    )


def _print_summary(story: Story, folder: Path) -> None:
    counts = story.ledger.counts()
    out.print("\n[bold]What was measured[/bold]")
    for name, value in story.accuracy.items():
        out.print(f"  {name:<10} {value:>7.1%}  (n = {story.n[name]})")
    out.print(f"  first correction to v2 live: {story.facts['correction_to_live_seconds']:.0f} s")
    out.print(
        f"  requests: {counts['sent']} sent, {counts['answered']} answered,"
        f" {counts['failed']} failed"
    )
    out.print(
        f"  rows logged {story.facts['log_rows']}, responses received"
        f" {story.facts['responses_received']}"
    )
    out.print(
        f"  the story took {story.facts['total_seconds'] / 60:.1f} minutes; what it compressed is"
        " listed in the report"
    )
    out.print("\n[bold]Look around[/bold]")
    out.print(f"  report   {folder / 'report.html'}")
    out.print(
        f"  console  WHET_HOME={folder / 'home'} make up, then open http://127.0.0.1:8080/ (user"
        f" admin, password in {folder / 'home' / 'admin.password'})"
    )
    out.print(
        "           / the circle · /traffic conversations · /review the queue · /drift what changed"
        " · /runs both trainings · /adapters versions and lineage"
    )
