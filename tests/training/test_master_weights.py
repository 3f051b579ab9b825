"""The float32 copies that take the updates of what is trained in bfloat16."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("copied", [True, False])
def test_updates_too_small_for_bfloat16_add_up_in_the_copies_below_a_librarys_optimiser(
    copied: bool,
) -> None:
    """Without the copies (the fault) each update of 1/1000 is rounded away: the numbers next to 1
    are 1/128 and 1/256 from it.
    """
    import torch

    from training.loop.master_weights import MasterWeights

    model = torch.nn.Linear(4, 1, bias=False).to(torch.bfloat16)
    torch.nn.init.ones_(model.weight)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    if copied:
        MasterWeights(model).attach_to(optimiser)
    for _ in range(100):
        model(torch.ones(1, 4, dtype=torch.bfloat16)).sum().backward()  # a gradient of 1
        optimiser.step()
        model.zero_grad()
    assert model.weight.dtype == torch.bfloat16
    assert model.weight.tolist() == [[pytest.approx(0.9, abs=1 / 256) if copied else 1.0] * 4]


def test_a_librarys_optimiser_takes_the_steps_that_it_would_take_itself() -> None:
    import torch

    from training.loop.master_weights import MasterWeights

    def trained(copied: bool) -> list[float]:
        torch.manual_seed(1)
        model = torch.nn.Sequential(
            torch.nn.Linear(3, 5), torch.nn.LayerNorm(5), torch.nn.Linear(5, 1)
        )
        parameters = [
            {"params": [each for each in model.parameters() if each.dim() > 1]},
            {
                "params": [each for each in model.parameters() if each.dim() < 2],
                "weight_decay": 0.0,
            },
        ]
        optimiser = torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.1)
        if copied:
            MasterWeights(model).attach_to(optimiser)
        rows = torch.randn(8, 3)
        for _ in range(5):
            (model(rows) - rows.sum(dim=1, keepdim=True)).square().mean().backward()
            optimiser.step()
            model.zero_grad()
        return torch.cat([each.detach().flatten() for each in model.parameters()]).tolist()

    assert trained(copied=True) == trained(copied=False)
