"""What `whet train run` and `resume` say of a result: at once when it is stored, and as JSON at the
end.
"""

from __future__ import annotations

import shlex

from training.commands.tables import metrics_table, print_details
from training.evaluation.report import opening, read_report
from training.recipes.methods import METHODS, MODEL
from training.runs.outcome import Outcome
from training.store.table_rows import Estimate
from training.web.words import memory_text
from training.web.words import said_value as value_text
from whet.cli import emit, err, out
from whet.context import Context
from whet.web.filters import duration

_COLOURS = {"pass": "green", "fail": "red"}
# What a verdict means for whoever wants to use the version.
_MEANINGS = {
    "pass": "may be promoted",
    "fail": "did not pass its gate and should not be promoted",
    "inconclusive": "undecided: there is too little to judge it by",
    "none": "not judged: nothing was held out",
}

_FOLDER_MEANINGS = {"pass": "passed its gate", "fail": "did not pass its gate"}


class Expected(Estimate):
    """What `--dry-run` prints."""

    alias: str
    base: str
    recipe: dict[str, object]


def summary(outcome: Outcome, notices: list[str]) -> dict[str, object]:
    """Return the JSON document of a run that has ended."""
    judgement = outcome.judgement
    return {
        "run": outcome.run_id,
        "adapter": outcome.adapter.label if outcome.adapter else None,
        "digest": outcome.adapter.digest if outcome.adapter else None,
        "path": outcome.adapter.path if outcome.adapter else None,
        "folder": str(outcome.folder) if outcome.folder else None,
        "verdict": judgement.verdict,
        "reason": judgement.reason,
        "against": judgement.against_name,
        "metrics": judgement.decision.metrics if judgement.decision else {},
        "loss": {
            "first": round(outcome.trained.first_loss, 4),
            "last": round(outcome.trained.last_loss, 4),
        },
        "tokens_per_s": round(outcome.trained.tokens_per_s),
        "seconds": {name: round(value, 1) for name, value in outcome.seconds.items()},
        "expected_seconds": outcome.estimate["seconds"],
        "estimate_error": outcome.estimate["error"],
        "signs": outcome.trained.signs,
        "dataset_digest": outcome.dataset_digest,
        "samples_path": judgement.samples_path,
        "next": next_command(outcome),
        "notices": notices,
    }


def next_command(outcome: Outcome) -> str:
    """Return the whole command that follows; only what passed is recommended for traffic."""
    if outcome.folder is not None:
        folder = shlex.quote(str(outcome.folder.absolute()))
        if METHODS[outcome.method].engine == MODEL:
            return f"WHET_BASE_MODEL={folder} whet up"
        load = f"AutoPeftModelForCausalLM.from_pretrained({str(outcome.folder.absolute())!r})"
        return f'python -c "from peft import AutoPeftModelForCausalLM; model = {load}"'
    assert outcome.adapter is not None
    if outcome.judgement.verdict == "pass":
        return f"whet rollout promote {outcome.adapter.name}"
    if outcome.judgement.verdict == "fail":
        return f"whet train show {outcome.run_id}"
    return f"whet eval run {outcome.adapter.label} --test FILE   (rows in other wordings)"


def _made(outcome: Outcome) -> str:
    return f"stored as {outcome.label}" if outcome.adapter else f"written to {outcome.folder}"


def note_stored(outcome: Outcome) -> None:
    """Say on standard error what a run made; its JSON document comes after the report."""
    err.print(f"{_made(outcome)}: {outcome.judgement.verdict}", markup=False, soft_wrap=True)


def show_stored(outcome: Outcome) -> None:
    """Print what a run made, in lines for people."""
    judgement = outcome.judgement
    colour = _COLOURS.get(judgement.verdict, "yellow")
    meaning = _MEANINGS.get(judgement.verdict, judgement.verdict)
    if outcome.adapter is None:
        meaning = _FOLDER_MEANINGS.get(judgement.verdict, meaning)
    out.print(_made(outcome), style="bold", markup=False, soft_wrap=True, end="")
    out.print(f", {meaning}", style=colour, markup=False, soft_wrap=True)
    out.print(_training_line(outcome), markup=False, soft_wrap=True)
    for sign in outcome.trained.signs:
        out.print(f"• {sign}", style="yellow", markup=False, soft_wrap=True)
    metrics = judgement.decision.metrics if judgement.decision else {}
    if rows := metrics_table(metrics, outcome.label, judgement.against_name):
        emit(rows, False)
    print_details(metrics, outcome.label, judgement.against_name)
    out.print(f"{judgement.verdict}  ", style=f"bold {colour}", end="")
    out.print(judgement.reason, markup=False, soft_wrap=True)
    if outcome.adapter is not None:
        out.print(f"Weights: {outcome.adapter.path} in the store", markup=False, soft_wrap=True)
    if judgement.samples_path:
        out.print(f"Answers: {judgement.samples_path} in the store", markup=False, soft_wrap=True)
    out.print(f"Next: {next_command(outcome)}", markup=False, soft_wrap=True)


def _training_line(outcome: Outcome) -> str:
    """`52 steps in 5.1 s (expected 5.0 s), 3,441 tokens/s, loss 3.725 to 0.045, memory …`."""
    trained, expected = outcome.trained, outcome.estimate
    measured = expected.get("measured", {})
    memory = ""
    if measured.get("peak_memory_bytes"):
        memory = (
            f", memory {memory_text(measured['peak_memory_bytes'])} at most "
            f"(expected {memory_text(expected['peak_memory_bytes'])})"
        )
    return (
        f"{trained.steps} steps in {duration(1000 * trained.seconds)} "
        f"(expected {duration(1000 * expected['seconds'])}), {trained.tokens:,} tokens at "
        f"{trained.tokens_per_s:,.0f} tokens/s, "
        f"loss {trained.first_loss:.3f} to {trained.last_loss:.3f}{memory}"
    )


def show_report(context: Context, outcome: Outcome, report: str) -> None:
    """Say what got worse, where everything else that was measured is, or how to have it measured."""
    if outcome.adapter is None or outcome.judgement.decision is None:
        return
    label = outcome.adapter.label
    if report == "none":
        text = f"No report was made; `whet eval run {label} --test FILE` makes one."
    else:
        found = read_report(context, outcome.judgement.samples_path)
        for line in opening(found, label)[1] if found else []:
            out.print(f"• worse: {line}", style="yellow", markup=False, soft_wrap=True)
        text = f"Report: whet eval report {label}"
        if report == "first look":
            text += f" (a first look; `whet eval run {label} --test FILE` asks every probe)"
    out.print(text, markup=False, soft_wrap=True)


def _refitting(expected: Expected) -> str:
    seconds = expected.get("refit_seconds")
    return f"{duration(1000 * seconds)} of training on all rows afterwards, " if seconds else ""


def show_expected(expected: Expected, notices: list[str]) -> None:
    """Print what `--dry-run` found, in lines for people. `expected`: as the JSON document has it."""
    for notice in notices:
        out.print(f"• {notice}", markup=False, soft_wrap=True)
    memory = expected["memory"]
    lines = {
        "alias": expected["alias"],
        "base": expected["base"],
        "rows": f"{expected['rows']:,}",
        "steps": f"{expected['steps']:,}",
        "tokens": f"{expected['tokens']:,}, of which {expected['trained_tokens']:,} are learned",
        "time": (
            f"{duration(1000 * expected['seconds'])} of training at "
            f"{expected['tokens_per_s']:,} tokens/s; {_refitting(expected)}judging and the report"
            " come on top"
        ),
        "memory": (
            f"{memory_text(expected['peak_memory_bytes'])} at most: "
            + ", ".join(f"{part} {memory_text(size)}" for part, size in memory.items() if size)
        ),
        "cost": f"{expected['cost']:g}" if "cost" in expected else "",
        "recipe": ", ".join(
            f"{name} {value_text(value)}"
            for name, value in expected["recipe"].items()
            if value not in ("", None)
        ),
    }
    emit({name: line for name, line in lines.items() if line}, False)
