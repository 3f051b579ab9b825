"""The optimiser: bf16 weights that compute, fp32 copies that learn.

Matrices inside the layers are updated by Muon (orthogonalised momentum), everything else by AdamW.
"""

from typing import Any, TypedDict

import torch
from torch import nn


def schedule(step: int, warm_up: int, decay_from: int | None, decay_steps: int) -> float:
    """Warm-up, constant, then a straight line to zero: the factor of the learning rate at ``step``."""
    factor = min(1.0, (step + 1) / warm_up)
    if decay_from is not None and step >= decay_from:
        factor *= max(0.0, 1.0 - (step - decay_from) / decay_steps)
    return factor


class OptimiserState(TypedDict):
    """Everything from which training goes on."""

    masters: list[torch.Tensor]
    optimisers: list[dict[str, Any]]  # as torch's optimisers give their own


class MasterOptimiser:
    """Holds fp32 copies of a bf16 model's parameters and updates both."""

    def __init__(self, model: nn.Module, learning_rate: float, muon: bool = True) -> None:
        self.parameters = list(model.parameters())
        self.masters = [p.detach().clone().float().requires_grad_() for p in self.parameters]
        names = [name for name, _ in model.named_parameters()]
        inner = [
            m.dim() == 2 and "layers" in name and muon
            for name, m in zip(names, self.masters, strict=True)
        ]
        matrices = [m for m, is_inner in zip(self.masters, inner, strict=True) if is_inner]
        others = [m for m, is_inner in zip(self.masters, inner, strict=True) if not is_inner]
        self.learning_rate = learning_rate
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                others, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.01, foreach=True
            )
        ]
        if matrices:
            # match_rms_adamw scales updates so that one learning rate serves both optimisers.
            self.optimisers.append(
                torch.optim.Muon(
                    matrices,
                    lr=learning_rate,
                    weight_decay=0.01,
                    momentum=0.95,
                    adjust_lr_fn="match_rms_adamw",
                )
            )

    def step(self, factor: float) -> float:
        """Update with the model's gradients at ``factor`` of the learning rate; return the
        gradient's norm.
        """

        for parameter, master in zip(self.parameters, self.masters, strict=True):
            assert parameter.grad is not None  # after a backward pass
            master.grad = parameter.grad.float()
            parameter.grad = None
        norm = float(torch.nn.utils.clip_grad_norm_(self.masters, 1.0))
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            for parameter, master in zip(self.parameters, self.masters, strict=True):
                parameter.copy_(master)
        return norm

    def state(self) -> OptimiserState:
        """Everything needed to go on."""
        return {
            "masters": [m.detach() for m in self.masters],
            "optimisers": [o.state_dict() for o in self.optimisers],
        }

    def load(self, state: OptimiserState) -> None:
        """Go on from ``state``."""

        with torch.no_grad():
            for parameter, master, kept in zip(
                self.parameters, self.masters, state["masters"], strict=True
            ):
                master.copy_(kept)
                parameter.copy_(kept)
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
