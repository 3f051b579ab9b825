"""What to do with an alias next: a function of what is live, what was counted, the policy, and the
time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from serving.sequential import evidence
from whet.registry import Adapter, Rollout

# Probability that a candidate that is no worse is ever rolled back by the tests, over all steps and
# measures
FALSE_ALARM = 0.01
HARD_MIN_ANSWERS = 20  # below this a rate is an anecdote
HARD_RATE = 0.25  # candidate failures of one kind at which nobody waits for more evidence …
# … unless the stable version fails nearly as often: then the engine or the traffic is to blame
HARD_MARGIN = 0.15
_HOUR_MS = 3_600_000
MEASURES = {
    "broken": "failed or cut answers",
    "empty": "empty answers",
    "negative": "negative ratings",
}


@dataclass(frozen=True, slots=True)
class Counts:
    """One arm since the generation began.

    Failures are counted once per end user (or per request without one), because the split is by
    user: one unlucky user must not weigh like many.
    """

    answers: int = 0  # complete, broken or empty; cancelled ones say nothing
    failures: dict[str, int] = field(default_factory=dict)  # measure -> units with at least one

    def rate(self, measure: str) -> float:
        return self.failures.get(measure, 0) / self.answers if self.answers else 0.0


@dataclass(frozen=True, slots=True)
class Policy:
    """From the settings."""

    shares: tuple[float, ...]  # rising, ends in 1.0
    min_requests: int
    max_hours: float
    automatic: bool


@dataclass(frozen=True, slots=True)
class Action:
    """`kind`: hold | start | raise | promote | rollback.

    `reason` is a sentence that is written down.
    """

    kind: str
    reason: str
    share: float = 0.0
    digest: str | None = None


def decide(rollout: Rollout, candidate: Counts, stable: Counts, policy: Policy, now: int) -> Action:
    """The next step of a canary."""
    if rollout.state != "canary" or rollout.candidate_digest is None:
        return Action("hold", "No candidate is on trial.")
    worse = _worse(candidate, stable, rollout.candidate_share, policy)
    if worse:
        return Action("rollback", worse)
    hours = (now - rollout.created_at) / _HOUR_MS
    if candidate.answers < policy.min_requests:
        if hours >= policy.max_hours:
            return Action(
                "rollback",
                f"After {hours:.1f} h at {rollout.candidate_share:.0%} the candidate had"
                f" {candidate.answers} answers of the {policy.min_requests} a step needs: too"
                " little traffic to judge it.",
            )
        return Action(
            "hold",
            f"{candidate.answers} of {policy.min_requests} answers at"
            f" {rollout.candidate_share:.0%}.",
        )
    following = next((share for share in policy.shares if share > rollout.candidate_share), 1.0)
    done = (
        f"{candidate.answers} answers at {rollout.candidate_share:.0%} showed nothing worse than"
        " the stable version"
    )
    if following >= 1.0:
        return Action("promote", f"{done}; it takes all traffic.")
    return Action("raise", f"{done}; it goes to {following:.0%}.", share=following)


def _worse(candidate: Counts, stable: Counts, share: float, policy: Policy) -> str:
    """Why the candidate is worse, or an empty string."""
    tests = len(MEASURES) * max(1, sum(step < 1.0 for step in policy.shares))
    for measure, words in MEASURES.items():
        rate, stable_rate = candidate.rate(measure), stable.rate(measure)
        numbers = (
            f"{words}: {candidate.failures.get(measure, 0)} of {candidate.answers} on the"
            f" candidate, {stable.failures.get(measure, 0)} of {stable.answers} on the stable"
            " version"
        )
        if (
            candidate.answers >= HARD_MIN_ANSWERS
            and rate >= HARD_RATE
            and rate - stable_rate >= HARD_MARGIN
        ):
            return f"Hard limit: {numbers}."
        if 0 < share < 1:
            found = evidence(
                candidate.failures.get(measure, 0), stable.failures.get(measure, 0), share
            )
            if found >= tests / FALSE_ALARM:
                return f"Worse than the stable version ({numbers}; evidence {found:.0f} to 1)."
    return ""


def candidate_for(
    rollout: Rollout,
    versions: Sequence[Adapter],
    history: Sequence[Rollout],
    *,
    ready_everywhere: Collection[str],
    policy: Policy,
    stable: Adapter | None,
) -> Action:
    """Should a version go on trial by itself?

    The first version of an alias is always promoted by a person.
    """
    if not policy.automatic:
        return Action("hold", "Automatic rollouts are switched off (WHET_ROLLOUT_AUTO).")
    if rollout.pinned:
        return Action("hold", "The alias is pinned.")
    if rollout.state == "canary":
        return Action("hold", "A candidate is on trial already.")
    turned_down = rejected(history)
    newest = max(
        (
            version
            for version in versions
            if version.name == rollout.alias and version.gate == "pass"
        ),
        key=lambda version: version.version,
        default=None,
    )
    if newest is None or newest.digest == rollout.stable_digest:
        return Action("hold", "No newer version has passed its gate.")
    if stable is not None and stable.name == rollout.alias and newest.version <= stable.version:
        return Action("hold", "No newer version has passed its gate.")
    if newest.digest in turned_down:
        return Action("hold", f"{newest.label} was rolled back; a person may start it again.")
    if newest.digest not in ready_everywhere:
        return Action("hold", f"{newest.label} is not ready on every engine yet.")
    return Action(
        "start", f"{newest.label} passed its gate.", share=policy.shares[0], digest=newest.digest
    )


def rejected(history: Sequence[Rollout]) -> set[str]:
    """Versions that were rolled back.

    `history` is newest first, as `whet.registry.rollout_history` gives it.
    """
    found: set[str] = set()
    for after, before in pairwise(history):
        if after.state == "rolled_back":
            digest = before.candidate_digest if before.state == "canary" else before.stable_digest
            if digest is not None:
                found.add(digest)
    return found
