"""Threads that each take rows of a step: what they compute together is what one computes, to the
bit every time, and only where nothing depends on who comes first.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from threading import Barrier, current_thread
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.training.run.small import RECIPE, encoded, fresh, weights
from tests.training.test_trainer import prepared_run
from tests.training.tiny import facts
from training.data.rows import Row, read_lines
from training.evaluation.answering import answer_rows
from training.evaluation.nll import reference_nll
from training.loop import throughput
from training.loop.checkpoint import Checkpoints
from training.loop.loss import batch_loss, mean_loss, recomputing
from training.loop.master_weights import MasterWeights
from training.loop.ranks import SINGLE_PROCESS
from training.loop.row_threads import (
    SINGLE_THREADED,
    RowThreadPool,
    row_thread_count,
    row_thread_pool,
)
from training.loop.throughput import choose_threads
from training.loop.trainer import Cancelled, Step, step_gradients, train
from training.methods.families import family
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.encoded import Encoded
from training.plan.estimates import estimate, memory_by_part
from training.recipes.methods import METHODS
from training.recipes.recipe import Recipe, load_recipe
from whet.context import Context
from whet.settings import load_settings

TWO = replace(RECIPE, dropout=0.0, micro_batch=0, threads=2, epochs=2.0)
# The order of sums is all that differs, in float32 (measured: 3e-7 of the largest gradient). A row
# that is left out, or counted at its share's weight, moves it by a tenth.
_ROUNDING = 1e-5


_OWN_LOOP = [
    (name, recomputed)
    for name, method in METHODS.items()
    if method.own_loop and "teacher" not in method.reads
    for recomputed in (False, True)
    if not recomputed or "gradient_checkpointing" in method.reads
]


def _gradient(model: Any, rows: list[Encoded], recipe: Recipe, workers: RowThreadPool) -> Any:
    import torch

    masters = MasterWeights(model.train())
    step_gradients(model, masters, rows, recipe, 0, "cpu", batch_loss, SINGLE_PROCESS, workers)
    return torch.cat([copy.grad.flatten() for copy in masters.copies])


def _weighted(base: BaseModel) -> list[Encoded]:
    """Rows of several lengths and weights: what a mean of means would get wrong."""
    return [
        replace(row, weight=float(1 + 3 * (number % 3)))
        for number, row in enumerate(encoded(base, 7))
    ]


def _moved(base: BaseModel, recipe: Recipe = TWO) -> Any:
    """A model whose adapter does something, so that every gradient is there."""
    import torch

    model = fresh(base, recipe)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("micro_batch", [0, 3])
def test_two_hands_find_the_gradient_of_one(
    base: BaseModel, micro_batch: int, packing: bool
) -> None:
    rows, model, recipe = (
        _weighted(base),
        _moved(base),
        replace(TWO, micro_batch=micro_batch, packing=packing),
    )
    alone = _gradient(model, rows, recipe, SINGLE_THREADED)
    with row_thread_pool(2, 8) as workers:
        together = _gradient(model, rows, recipe, workers)
    assert float((together - alone).abs().max() / alone.abs().max()) < _ROUNDING


@pytest.mark.parametrize(("method", "recomputed"), _OWN_LOOP)
def test_two_hands_find_the_gradient_of_one_in_every_method_of_our_own_loop(
    sqlite_context: Context, base_folder: Path, method: str, recomputed: bool
) -> None:
    home = replace(
        sqlite_context,
        settings=load_settings(home=sqlite_context.settings.home, base_model=str(base_folder)),
    )
    small = {"rank": 8, "alpha": 16.0} if "alpha" in METHODS[method].reads else {}
    prepared, _ = prepared_run(
        home, facts(24), load_recipe(method), dtype="float32", threads=2, **small
    )
    model, loss_of = family(METHODS[method]).build(prepared), family(METHODS[method]).loss(prepared)
    recipe = replace(prepared.recipe, gradient_checkpointing=recomputed, micro_batch=0)
    rows, masters, found = prepared.train[:7], MasterWeights(model.train()), []
    for threads in (1, 2):
        with row_thread_pool(threads, 8) as workers, recomputing(model, recipe):
            step_gradients(model, masters, rows, recipe, 0, "cpu", loss_of, SINGLE_PROCESS, workers)
        found.append([copy.grad for copy in masters.copies])
        for copy in masters.copies:
            copy.grad = None
    for alone, together in zip(*found, strict=True):
        assert float((together - alone).abs().max()) <= _ROUNDING * max(
            1e-3, float(alone.abs().max())
        )


def test_a_share_weighed_by_itself_would_be_another_gradient(base: BaseModel) -> None:
    """The fault behind the rule: the mean of the threads' means."""
    rows, model = _weighted(base), _moved(base)
    shares = [rows[0::2], rows[1::2]]
    mean = sum(_gradient(model, share, TWO, SINGLE_THREADED) for share in shares) / 2
    alone = _gradient(model, rows, TWO, SINGLE_THREADED)
    assert float((mean - alone).abs().max() / alone.abs().max()) > 100 * _ROUNDING


def test_the_same_hands_give_the_same_weights_to_the_bit_also_after_a_stop(
    base: BaseModel, tmp_path: Path
) -> None:
    import torch

    rows, held, ended = encoded(base, 24), encoded(base, 8), []
    for stop_at in (0, 0, 3):
        model = fresh(base, TWO)
        checkpoints = Checkpoints(tmp_path / f"{len(ended)}", every_s=0)

        def on_step(step: Step, stop_at: int = stop_at) -> None:
            if step.step == stop_at:
                raise Cancelled

        loop: dict[str, Any] = {"pad_id": 0, "checkpoints": checkpoints}
        if stop_at:
            with pytest.raises(Cancelled):
                train(model, rows, held, TWO, on_step=on_step, **loop)
            model = fresh(base, TWO)
            train(
                model,
                rows,
                held,
                TWO,
                on_step=lambda step: None,
                resume=checkpoints.newest(),
                **loop,
            )
        else:
            train(model, rows, held, TWO, on_step=on_step, **loop)
        ended.append(weights(model))
    assert torch.equal(ended[0], ended[1]), "two undisturbed runs"
    assert torch.equal(ended[0], ended[2]), "one that was stopped and taken up again"
    other = fresh(base, TWO)
    train(other, rows, held, replace(TWO, threads=1), pad_id=0, on_step=lambda step: None)
    assert float((weights(other) - ended[0]).abs().max()) < 1e-3 * float(ended[0].abs().max()), (
        "one thread learns the same"
    )


def test_a_loss_is_the_same_by_two_hands_and_leaves_no_graph(base: BaseModel) -> None:
    model, rows = _moved(base), _weighted(base)
    with row_thread_pool(2, 8) as workers:
        found = mean_loss(model, rows, TWO, 0, batch_loss, SINGLE_PROCESS, workers)
    assert found == pytest.approx(mean_loss(model, rows, TWO, 0), rel=1e-5)


def test_hands_work_at_once_and_answer_in_the_order_of_the_work() -> None:
    meeting = Barrier(2, timeout=60)  # which one thread after the other would never pass

    def work(number: int) -> tuple[int, str]:
        meeting.wait()
        return number, current_thread().name

    with row_thread_pool(2, 8) as workers:
        found = workers.map(work, [1, 2])
    assert [number for number, _ in found] == [1, 2] and len({name for _, name in found}) == 2


def test_rows_are_dealt_in_turns_and_no_hand_goes_without() -> None:
    with row_thread_pool(4, 3) as workers:
        assert workers.count == 3 and workers.split_rows([1, 2, 3]) == [[1], [2], [3]]
        assert workers.split_rows([1, 2, 3, 4, 5]) == [[1, 4], [2, 5], [3]] and workers.split_rows(
            [1]
        ) == [[1]]
    assert SINGLE_THREADED.split_rows([1, 2, 3]) == [[1, 2, 3]]


def test_thread_count_is_bounded() -> None:
    """Python runs in one thread at a time, and every thread runs all of a step's."""
    import torch

    with row_thread_pool(16, 8) as workers:
        assert workers.count == 4 and set(
            workers.map(lambda _: torch.get_num_threads(), range(4))
        ) == {4}


def test_what_one_thread_raises_is_raised_and_the_threads_of_torch_are_as_before() -> None:
    import torch

    def work(number: int) -> int:
        if number == 2:
            raise MemoryError("of the second")
        return number

    before = torch.get_num_threads()
    with pytest.raises(MemoryError, match="of the second"), row_thread_pool(2, 8) as workers:
        workers.map(work, [1, 2])
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("recipe", "device", "expected"),
    [
        (Recipe(threads=4), "cpu", 4),
        (Recipe(threads=0), "cpu", 1),
        (Recipe(threads=4), "cuda", 1),
        (Recipe(threads=4, dropout=0.1), "cpu", 1),  # who draws first would be chance
        (Recipe(threads=4, processes=2), "cpu", 1),
        (Recipe(threads=4, method="dpo"), "cpu", 1),  # TRL's loop
        (Recipe(threads=4, method="full"), "cpu", 4),
    ],
)
def test_rows_are_shared_where_nothing_depends_on_who_comes_first(
    recipe: Recipe, device: str, expected: int
) -> None:
    assert row_thread_count(recipe, device) == expected


@pytest.mark.parametrize(
    ("alone", "together", "writing", "chosen"),
    [
        (100.0, 109.0, 0.0, 1),
        (100.0, 111.0, 0.0, 2),
        (100.0, 80.0, 0.0, 1),
        (100.0, 150.0, 0.0, 2),
        (100.0, 150.0, 1000.0, 1),
    ],
)
def test_all_threads_are_taken_where_they_are_worth_it(
    base: BaseModel,
    monkeypatch: pytest.MonkeyPatch,
    alone: float,
    together: float,
    writing: float,
    chosen: int,
) -> None:
    import torch

    before = torch.get_num_threads()
    speeds = {1: alone, 2: together}
    monkeypatch.setattr(throughput.os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(throughput, "tokens_per_s", lambda *given: speeds[given[2].threads])
    try:
        found = choose_threads(
            fresh(base, TWO),
            encoded(base, 8),
            replace(TWO, threads=0),
            0,
            batch_loss,
            lambda: writing,
        )
        assert (
            found == (chosen, pytest.approx(speeds[chosen])) and torch.get_num_threads() == chosen
        )
        asked = choose_threads(
            fresh(base, TWO),
            encoded(base, 8),
            replace(TWO, threads=2),
            0,
            batch_loss,
            lambda: pytest.fail("there is nothing to choose"),
        )
        assert asked == (2, pytest.approx(together))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("pause_s", "chosen"), [(0.0, 1), (throughput._TWICE_WITHIN_S, 2)])
def test_a_machine_that_becomes_faster_while_it_is_measured_decides_nothing(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch, pause_s: float, chosen: int
) -> None:
    """Two threads gain nothing here, and are measured on the faster machine.

    A base that takes long is measured once, and there the machine does decide.
    """
    import torch

    before, clock, measured = torch.get_num_threads(), [0.0], iter([100.0, 120.0, 140.0, 160.0])

    def tokens_per_s(*given: Any) -> float:
        if given[-1] == 0:  # the first look, by which it is known what measuring may take
            return 1e-3
        clock[0] += pause_s
        return next(measured)

    monkeypatch.setattr(throughput.os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(throughput, "tokens_per_s", tokens_per_s)
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    try:
        assert (
            choose_threads(
                fresh(base, TWO), encoded(base, 8), replace(TWO, threads=0), 0, batch_loss
            )[0]
            == chosen
        )
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("pass_s", "run_s", "choices", "parts"),
    [
        (0.01, 0.5, 2, 3),  # the built-in base: nobody waits for it
        (1.8, 360.0, 2, 3),  # 250 rows on 135 M parameters, quiet: 18 s may be measured
        (1.8, 200.0, 2, 1),
        (1.8, 20.0, 2, 0),  # ten steps of them: one part, and no more
        (11.0, 110.0, 2, 0),  # the same on a busy machine
        (11.0, 2200.0, 2, 3),
        (1.8, 200.0, 1, 3),
    ],
)
def test_measuring_takes_a_share_of_the_run(
    pass_s: float, run_s: float, choices: int, parts: int
) -> None:
    assert throughput.affordable_parts(pass_s, run_s, choices) == parts
    measured = choices * (1 + parts) * pass_s if parts else 0.0
    assert pass_s + measured <= max(pass_s, 0.05 * run_s, 2.0)


def test_short_run_on_a_slow_base_is_not_measured_for_longer_than_it_lasts(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, clock, looks = torch.get_num_threads(), [0.0], []

    def tokens_per_s(*given: Any) -> float:
        looks.append(given[-1])
        clock[0] += 1.8
        return 100.0

    monkeypatch.setattr(throughput.os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(throughput, "tokens_per_s", tokens_per_s)
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    try:
        recipe = replace(TWO, threads=0, epochs=1.0)
        assert choose_threads(fresh(base, TWO), encoded(base, 8), recipe, 0) == (2, 100.0)
        assert looks == [0], "one part, with all threads"
    finally:
        torch.set_num_threads(before)


def test_measuring_changes_no_weight(base: BaseModel) -> None:
    import torch

    model = _moved(base)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    assert throughput.tokens_per_s(model, encoded(base, 20), TWO, 0, batch_loss) > 0
    assert throughput.tokens_per_s(model, encoded(base, 1), TWO, 0, batch_loss) > 0, (
        "a single row can be timed"
    )
    assert all(
        torch.equal(before[name], parameter) and parameter.grad is None
        for name, parameter in model.named_parameters()
    )


def test_an_estimate_counts_the_validation_rows_and_every_hands_gradients(base: BaseModel) -> None:
    class Work:
        padding, tokens, trained_tokens = 1.0, 1000, 300

    class Run:
        work, recipe, train, validation, steps = (
            Work,
            replace(TWO, epochs=2.0),
            [None] * 10,
            encoded(base, 4),
            4,
        )

    memory = {
        "process": 1,
        "base": 1,
        "adapter": 1,
        "optimiser": 1,
        "activations": 1,
        "checkpoint": 1,
        "loading": 1,
    }
    held = sum(len(row.ids) for row in Run.validation)
    assert estimate(Run, 100.0, memory)["seconds"] == round((2000 + 0.4 * 2 * held) / 100, 1)  # type: ignore[arg-type]
    model, rows = fresh(base, TWO), encoded(base, 8)
    sizes = [
        memory_by_part(model, rows, replace(TWO, threads=threads), 0, batch_loss, validated=False)[
            "adapter"
        ]
        for threads in (1, 2)
    ]
    assert sizes[1] - sizes[0] == sum(
        parameter.numel() * parameter.element_size()
        for parameter in model.parameters()
        if parameter.requires_grad
    )


def _rows(count: int) -> list[Row]:
    return read_lines([json.dumps(row).encode() for row in facts(count)]).rows


def test_two_hands_answer_and_measure_as_one(base: BaseModel) -> None:
    import torch

    model, encoder, rows, told = _moved(base).eval(), Encoder(base, 256), _rows(9), []
    before, found = torch.get_num_threads(), {}
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            answers = answer_rows(
                model, encoder, rows, on_batch=lambda done, total: told.append((done, total))
            )
            found[threads] = (
                answers,
                {name: nats.nats for name, nats in reference_nll(model, encoder, rows).items()},
            )
    finally:
        torch.set_num_threads(before)
    assert found[1][0] == found[2][0] and set(found[1][0]) == {row.id for row in rows}
    assert found[1][1] == pytest.approx(found[2][1], rel=1e-5)
    assert told[-1] == (9, 9)
