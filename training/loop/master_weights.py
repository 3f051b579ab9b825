"""FP32 master weights of what is trained, and the best checkpoint of them so far."""

from __future__ import annotations

from typing import Any, cast

import torch
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from torch import nn

from training.loop.checkpoint import LoopState
from training.loop.ranks import full_tensor, shard_like, to_local

# The second is below the usual 0.999, which forgets too slowly for runs of 100 to 500 steps
_BETAS = (0.9, 0.99)

_MULTIPLE = "lr_multiple"  # of the run's learning rate, in a group of an optimiser's parameters


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters its multiple of a learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get(_MULTIPLE, 1.0)


class MasterWeights:
    """The adapter's parameters in the compute dtype, and their FP32 copies, which the optimiser
    sees.

    In bfloat16 alone an update smaller than 1/256 of a weight is lost; in float32 alone every layer
    casts its input up and down.
    """

    def __init__(self, model: nn.Module) -> None:
        self._torch, self._model = torch, model
        # Matrices first: decay is theirs alone. What scales (norms, DoRA's lengths) and biases
        # would be pulled towards nothing.
        self.parameters = sorted(
            (parameter for parameter in model.parameters() if parameter.requires_grad),
            key=lambda parameter: parameter.dim() < 2,
        )
        self.copies = [
            parameter.detach().to(torch.float32).clone().requires_grad_(True)
            for parameter in self.parameters
        ]

    def optimiser(self, decay: float, loraplus_lr_ratio: float = 1.0) -> torch.optim.Optimizer:
        """Return AdamW over the copies, in their order, by which a checkpoint numbers what it
        keeps.

        `set_rate` gives it a learning rate. With a ratio above 1 the groups are those of LoRA+
        (Hayou et al. 2024) as PEFT makes them: B learns at so many times the rate of A.
        """
        if loraplus_lr_ratio != 1.0:
            return self._loraplus(decay, loraplus_lr_ratio)
        matrices, others = (
            [copy for copy in self.copies if (copy.dim() < 2) == flat] for flat in (False, True)
        )
        groups = [
            {"params": some, "weight_decay": share}
            for some, share in ((matrices, decay), (others, 0.0))
            if some
        ]
        return self._torch.optim.AdamW(groups, betas=_BETAS, fused=True)

    def _loraplus(self, decay: float, ratio: float) -> torch.optim.Optimizer:
        """Return PEFT's optimiser for LoRA+ over the copies, which take the order of its groups."""

        made = create_loraplus_optimizer(
            cast(PeftModel, self._model),
            self._torch.optim.AdamW,
            lr=1.0,  # so that the rate of a group is its multiple of A's
            loraplus_lr_ratio=ratio,
            loraplus_weight_decay=decay,
            betas=_BETAS,
            fused=True,
        )
        copy_of = dict(zip(map(id, self.parameters), self.copies, strict=True))
        self.parameters = [each for group in made.param_groups for each in group["params"]]
        self.copies = [copy_of[id(parameter)] for parameter in self.parameters]
        for group in made.param_groups:
            group["params"] = [copy_of[id(parameter)] for parameter in group["params"]]
            group[_MULTIPLE] = group["lr"]
        return made

    def attach_to(self, optimiser: torch.optim.Optimizer) -> None:
        """Point a library's optimiser over the parameters at the copies instead.

        Its steps take the gradients from the parameters and copy the weights to the model.
        """
        copy_of = dict(zip(map(id, self.parameters), self.copies, strict=True))
        for group in optimiser.param_groups:
            group["params"] = [copy_of[id(parameter)] for parameter in group["params"]]
        optimiser.register_step_pre_hook(
            lambda *_: self.add([parameter.grad for parameter in self.parameters])
        )
        optimiser.register_step_post_hook(lambda *_: self.copy_to_model())

    def gradients(self, loss: torch.Tensor, *, sharded: bool) -> list[torch.Tensor | None]:
        """Return the gradients of `loss` by the parameters; None for one that took no part.

        Where processes hold shards (`sharded`), only a backward pass sums them up.
        """
        if not sharded:
            return list(self._torch.autograd.grad(loss, self.parameters, allow_unused=True))
        self._torch.autograd.backward(loss)
        found = [parameter.grad for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        return found

    def add(self, gradients: list[torch.Tensor | None]) -> None:
        """Add to the gradients that this step has so far; `gradients` is emptied."""
        for number, copy in enumerate(self.copies):
            gradient, gradients[number] = gradients[number], None
            if gradient is not None:
                exact = gradient.to(self._torch.float32)
                copy.grad = exact if copy.grad is None else copy.grad.add_(exact)

    def clip(self, limit: float) -> torch.Tensor:
        """Scale the gradients down to the limit; returns their norm before."""
        return full_tensor(self._torch.nn.utils.clip_grad_norm_(self.copies, limit, foreach=True))

    def copy_to_model(self) -> None:
        """Write the copies into the model's parameters and drop the gradients."""
        with self._torch.no_grad():
            self._torch._foreach_copy_(
                [to_local(parameter) for parameter in self.parameters],
                [to_local(copy) for copy in self.copies],
            )
        for copy in self.copies:
            copy.grad = None

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the FP32 weights as a checkpoint holds them: `master.<n>`."""
        return {
            f"master.{number}": full_tensor(copy.detach())
            for number, copy in enumerate(self.copies)
        }

    def load_weights(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take the weights of a checkpoint."""
        self.set_weights(
            [
                shard_like(tensors[f"master.{number}"], copy)
                for number, copy in enumerate(self.copies)
            ]
        )

    def tensors(self, optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
        """Return the weights and the optimiser's state, `optimiser.<n>.<name>`, for a checkpoint."""
        found = self.weights()
        # Sorted: what was loaded stands in another order in each process, and all have to put the
        # same tensor together at a time.
        for number, values in sorted(optimiser.state_dict()["state"].items()):
            found.update(
                {
                    f"optimiser.{number}.{name}": full_tensor(value)
                    for name, value in sorted(values.items())
                }
            )
        return found

    def load(self, tensors: dict[str, torch.Tensor], optimiser: torch.optim.Optimizer) -> None:
        """Take the weights and the optimiser's state of a checkpoint."""
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimiser."):
                _, number, key = name.split(".", 2)
                state.setdefault(int(number), {})[key] = (
                    tensor if tensor.dim() == 0 else shard_like(tensor, self.copies[int(number)])
                )
        optimiser.load_state_dict(
            {"state": state, "param_groups": optimiser.state_dict()["param_groups"]}
        )
        self.load_weights(tensors)

    def set_weights(self, values: list[torch.Tensor]) -> None:
        """Replace the weights, in the copies and in the model."""
        for copy, value in zip(self.copies, values, strict=True):
            copy.detach().copy_(value)
        self.copy_to_model()


class BestCheckpoint:
    """Keeps the weights with the lowest validation loss."""

    def __init__(self, masters: MasterWeights) -> None:
        self._masters = masters
        self._weights: list[torch.Tensor] | None = None

    def update(self, state: LoopState, loss: float) -> None:
        """Record a validation loss, and keep the weights when it is the lowest."""
        state.validation.append([state.step, loss])
        if loss <= min(value for _, value in state.validation):
            self._weights = [copy.detach().clone() for copy in self._masters.copies]
            state.best_step = state.step

    def restore(self) -> None:
        if self._weights is not None:
            self._masters.set_weights(self._weights)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the kept weights as a checkpoint holds them: `best.<n>`."""
        return {
            f"best.{number}": full_tensor(weight)
            for number, weight in enumerate(self._weights or [])
        }

    def load(self, tensors: dict[str, torch.Tensor], state: LoopState) -> None:
        """Take the kept weights of a checkpoint; with no best step yet it has none."""
        if state.best_step:
            self._weights = [
                shard_like(tensors[f"best.{number}"], copy)
                for number, copy in enumerate(self._masters.copies)
            ]
