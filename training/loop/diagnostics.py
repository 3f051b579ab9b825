"""Diagnostics of a run: pure functions of its losses and answers.

Each returns one sentence, empty when nothing is wrong, or raises the error that ends the run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from training.recipes.recipe import Recipe
from training.store.evaluation_types import GroupMetrics, Metrics
from whet.errors import TrainingError

# NllSum by which the loss may end above where it began: each learned token is then e times less
# likely than before training, and no run comes back from there.
_DIVERGED = 1.0
_WINDOW = 20  # steps over which divergence is judged
# A loss so far above the first ones is no noise of small batches; it is judged over fewer steps, so
# that a wild rate is noticed at once.
_EXPLODED = 3.0
_FEW = 5
_FLAT_FROM = 40  # steps before which a flat loss may be the warm-up
# A loss that fell by less than this share of itself, and by less than its noise, has not moved
_FLAT_SHARE = 0.01
# Mean loss of a pass below which nothing is left to learn from the rows: every learned token is
# 99.9 % certain, and gradients are a thousandth of what they were.
_LEARNED_BY_HEART = 0.001
# Of the answers; below it the engine would cut more answers than the model ends
_STOPPED_SHARE = 0.5
_FEWEST_ANSWERS = 5  # fewer say nothing
_LEAST_GAIN = 0.01  # in overlap with the reference; less is within what another seed gives
_WEAK_REWARDS = 0.6  # of the pairs it was trained on, whose better half a coin finds in 0.5


def check_divergence(
    losses: Sequence[float], norm: float, step: int, recipe: Recipe, before: float | None = None
) -> None:
    """Raise TrainingError when the newest loss or gradient norm is no number, or the loss diverges.

    `before` is the loss of the model as it was before the first step; without it the first losses
    stand for it, and a rate that ruins the model within those goes unseen.
    """
    require_finite(losses[-1], "loss", step, recipe)
    require_finite(norm, "gradient", step, recipe)
    if step == 1 and norm == 0:  # of real weights it never is, to the last bit
        raise TrainingError(
            "No gradient arrives at what is trained: it is exactly 0 at the first step, so nothing"
            " could be learned.",
            hint=(
                "Look at the base's weights: layers of zeros pass nothing on. Copy or download the"
                " model again."
            ),
        )
    for window, rise in ((_FEW, _EXPLODED), (_WINDOW, _DIVERGED)):
        if len(losses) >= (3 if before is None else 2) * window:
            begin, now = (
                fmean(losses[:window]) if before is None else before,
                fmean(losses[-window:]),
            )
            if now > begin + rise:
                raise TrainingError(
                    f"The run diverged: the loss rose from {begin:.2f} to {now:.2f} by step"
                    f" {step}.",
                    hint=f"Lower the learning rate (it was {recipe.learning_rate:g}).",
                )


def require_finite(value: float, what: str, step: int, recipe: Recipe) -> float:
    """Return the value. Raises TrainingError when it is no number."""
    if not math.isfinite(value):
        raise TrainingError(
            f"The {what} {f'stopped being a number at step {step}' if step else 'is no number before the first step'} (learning"
            f" rate {recipe.learning_rate:g}, {recipe.dtype}).",
            hint=_why_no_number(step, recipe),
        )
    return value


def _why_no_number(step: int, recipe: Recipe) -> str:
    """The first step's loss and gradient are of weights that no rate has changed yet."""
    if step > 1:
        return "Lower the learning rate" + (
            "." if recipe.dtype == "float32" else ", or train with dtype float32."
        )
    other = ["or those of the version it goes on from"] * bool(recipe.init_from) + [
        "or the teacher's"
    ] * bool(recipe.teacher)
    words = " ".join(
        [
            "Nothing was learned yet, so it is not the rate: the base's weights",
            *other,
            "hold NaN or infinity, or are too large for",
            recipe.dtype,
        ]
    )
    return f"{words}. Copy or download the model again" + (
        "." if recipe.dtype == "float32" else ", or train with dtype float32."
    )


def explain_early_stop(
    validation: Sequence[Sequence[float]], losses: Sequence[float], patience: int
) -> str:
    """Say why to stop early, after `patience` validations without a new best, or return nothing.

    `validation` is [step, loss] of each validation, `losses` the training loss of each step.
    """
    if patience <= 0 or len(validation) <= patience:
        return ""
    best = min(range(len(validation)), key=lambda number: validation[number][1])
    if len(validation) - 1 - best < patience:
        return ""
    best_step, lowest = int(validation[best][0]), validation[best][1]
    step, now = int(validation[-1][0]), validation[-1][1]
    every = max(1, step - int(validation[-2][0]))
    before, after = (
        fmean(losses[max(0, best_step - every) : best_step]),
        fmean(losses[max(0, step - every) : step]),
    )
    if after < before and now > lowest:
        return (
            f"Overfitting: since step {best_step} the loss on held-out rows rose from"
            f" {lowest:.3f} to {now:.3f} while it fell on the training rows ({before:.3f} to"
            f" {after:.3f}); stopped at step {step}, and the weights of step {best_step} were kept."
        )
    return (
        f"The loss on held-out rows has not improved since step {best_step} ({lowest:.3f}); stopped"
        f" at step {step}, and the weights of step {best_step} were kept."
    )


def explain_plateau(losses: Sequence[float], steps: int, before: float | None = None) -> str:
    """Say that the loss has not fallen by half of the run or later, or return nothing.

    Nor has one that only came back to where it was `before` the first step, as with a rate that is
    too high. Two standard errors of the means are its noise.
    """
    if len(losses) < max(_FLAT_FROM, steps // 2):
        return ""
    part = len(losses) // 4
    first, last = losses[:part], losses[-part:]
    fell = fmean(first) - fmean(last)
    noise = 2 * math.hypot(stdev(first), stdev(last)) / math.sqrt(part)
    if before is not None and fmean(first) > before + noise and fmean(last) > before + noise:
        return (
            f"Worse than before: the loss was {before:.3f} before the first step, rose to"
            f" {max(losses):.3f} and is {fmean(last):.3f} by step {len(losses)}. Lower the learning"
            " rate."
        )
    if fell > _FLAT_SHARE * abs(fmean(first)) and fell > noise:
        return ""
    return (
        f"Nothing was learned by step {len(losses)}: the loss began at {fmean(first):.3f} and is"
        f" {fmean(last):.3f}. Raise the learning rate or the rank, and look with `whet data check`"
        " whether the answers follow from the questions."
    )


def explain_memorisation(losses: Sequence[float], per_epoch: int, steps: int) -> str:
    """Say why to stop early when a whole pass has hardly any loss left, or return nothing.

    `losses` is of each step so far, `per_epoch` and `steps` are the steps of a pass and of the run.
    """
    step = len(losses)
    if step < max(per_epoch, _FLAT_FROM) or step >= steps:
        return ""
    mean = fmean(losses[-per_epoch:])
    if mean >= _LEARNED_BY_HEART:
        return ""
    return (
        f"The rows are learned by heart: the loss of the last pass is {mean:.4f}. Stopped at step"
        f" {step} of {steps}. More wordings of the same questions would teach more than more"
        " passes."
    )


def warn_weak_rewards(right: int, pairs: int) -> str:
    """Say that a reward model did not learn its own training pairs, or return nothing.

    `right` of the `pairs` give the chosen answer the higher reward.
    """
    if right >= _WEAK_REWARDS * pairs:
        return ""
    return (
        f"The reward model prefers the chosen answer in {100 * right / pairs:.0f} % of"
        f" {pairs} pairs, hardly more than chance: its rewards teach little. Raise the learning"
        " rate or the epochs, and look whether the chosen answers are better in a way that can be"
        " told from the text."
    )


def warn_endless_answers(metrics: Metrics) -> str:
    """Say that the model's answers do not end by themselves, or return nothing.

    `metrics` are the gate's, by group of held-out rows.
    """
    for name, group in metrics.items():
        stopped = group.get("candidate_stopped")
        if (
            stopped is not None
            and group.get("n", 0) >= _FEWEST_ANSWERS
            and stopped < _STOPPED_SHARE
        ):
            return (
                f"Answers do not stop: only {100 * stopped:.0f} % of the answers to the {name} rows"
                " ended by themselves. Train for more epochs, or look with `whet data check`"
                " whether the end of the turn is learned."
            )
    return ""


def warn_no_gain(metrics: Metrics, against: str) -> str:
    """Say that the held-out answers are no better than those of the base, or nothing.

    `metrics` are the gate's, by group of held-out rows; `against` the base's name.
    """
    group = metrics.get("all", GroupMetrics())
    right, base_right = group.get("candidate"), group.get("against")
    ours, theirs = group.get("candidate_f1"), group.get("against_f1")
    if group.get("n", 0) < _FEWEST_ANSWERS or right is None or base_right is None:
        return ""
    if ours is None or theirs is None or right > base_right or ours > theirs + _LEAST_GAIN:
        return ""
    return (
        f"Nothing was gained: on {group['n']} held-out rows the answers agree with the references "
        f"by {100 * ours:.1f} %, those of {against} by {100 * theirs:.1f} %. Train longer "
        "(--epochs) or at a higher rate (--learning-rate); methods that change few weights "
        "(prefix, prompt, ia3) need many more steps than lora."
    )
