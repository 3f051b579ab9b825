"""The float32 copies of what is trained, which take the updates, and the best of them so far."""

from __future__ import annotations

from typing import Any

from training.run.checkpoint import LoopState
from training.run.ranks import own, shares_of, whole

_BETAS = (0.9, 0.99)  # the second is below the usual 0.999, which forgets too slowly for runs of 100 to 500 steps

_MULTIPLE = "lr_multiple"  # of the run's learning rate, in a group of an optimiser's parameters


def set_rate(optimiser: Any, rate: float) -> None:
    """Give every group of parameters its multiple of a learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get(_MULTIPLE, 1.0)


class Masters:
    """The adapter's parameters in the compute dtype, and the float32 copies that the optimiser sees.

    In bfloat16 alone an update smaller than 1/256 of a weight is lost; in float32 alone every layer casts its input up and down.
    """

    def __init__(self, model: Any) -> None:
        import torch

        self._torch, self._model = torch, model
        # Matrices first: decay is theirs alone. What scales (norms, DoRA's lengths) and biases would be pulled towards nothing.
        self.parameters = sorted((parameter for parameter in model.parameters() if parameter.requires_grad), key=lambda parameter: parameter.dim() < 2)
        self.copies = [parameter.detach().to(torch.float32).clone().requires_grad_(True) for parameter in self.parameters]

    def optimiser(self, decay: float, loraplus_lr_ratio: float = 1.0) -> Any:
        """Return AdamW over the copies, in their order, by which a checkpoint numbers what it keeps.

        `set_rate` gives it a learning rate. With a ratio above 1 the groups are those of LoRA+
        (Hayou et al. 2024) as PEFT makes them: B learns at so many times the rate of A.
        """
        if loraplus_lr_ratio != 1.0:
            return self._loraplus(decay, loraplus_lr_ratio)
        matrices, others = ([copy for copy in self.copies if (copy.dim() < 2) == flat] for flat in (False, True))
        groups = [{"params": some, "weight_decay": share} for some, share in ((matrices, decay), (others, 0.0)) if some]
        return self._torch.optim.AdamW(groups, betas=_BETAS, fused=True)

    def _loraplus(self, decay: float, ratio: float) -> Any:
        """Return PEFT's optimiser for LoRA+ over the copies, which take the order of its groups."""
        from peft.optimizers import create_loraplus_optimizer

        made = create_loraplus_optimizer(
            self._model,
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

    def under(self, optimiser: Any) -> None:
        """Let a library's optimiser over the parameters have the copies instead: its steps take the gradients from the parameters and give the weights back."""
        copy_of = dict(zip(map(id, self.parameters), self.copies, strict=True))
        for group in optimiser.param_groups:
            group["params"] = [copy_of[id(parameter)] for parameter in group["params"]]
        optimiser.register_step_pre_hook(lambda *_: self.add([parameter.grad for parameter in self.parameters]))
        optimiser.register_step_post_hook(lambda *_: self.give_back())

    def gradients(self, loss: Any, *, sharded: bool) -> list[Any]:
        """Of `loss`, by the parameters; None for one that took no part. Where processes hold them in shares (`sharded`), only a backward pass sums them up."""
        if not sharded:
            return list(self._torch.autograd.grad(loss, self.parameters, allow_unused=True))
        loss.backward()
        found = [parameter.grad for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        return found

    def add(self, gradients: list[Any]) -> None:
        """Add them to those of this step before, and let each go."""
        for number, copy in enumerate(self.copies):
            gradient, gradients[number] = gradients[number], None
            if gradient is not None:
                exact = gradient.to(self._torch.float32)
                copy.grad = exact if copy.grad is None else copy.grad.add_(exact)

    def clip(self, limit: float) -> Any:
        """Scale the gradients down to the limit; returns their norm before."""
        return whole(self._torch.nn.utils.clip_grad_norm_(self.copies, limit, foreach=True))

    def give_back(self) -> None:
        with self._torch.no_grad():
            self._torch._foreach_copy_([own(parameter) for parameter in self.parameters], [own(copy) for copy in self.copies])
        for copy in self.copies:
            copy.grad = None

    def weights(self) -> dict[str, Any]:
        """What a checkpoint holds of them: `master.<n>`."""
        return {f"master.{number}": whole(copy.detach()) for number, copy in enumerate(self.copies)}

    def take(self, tensors: dict[str, Any]) -> None:
        """The other way."""
        self.put([shares_of(tensors[f"master.{number}"], copy) for number, copy in enumerate(self.copies)])

    def tensors(self, optimiser: Any) -> dict[str, Any]:
        """What a checkpoint holds of them and of their optimiser, `optimiser.<n>.<name>`."""
        found = self.weights()
        # Sorted: what was loaded stands in another order in each process, and all have to put the same tensor together at a time.
        for number, values in sorted(optimiser.state_dict()["state"].items()):
            found.update({f"optimiser.{number}.{name}": whole(value) for name, value in sorted(values.items())})
        return found

    def load(self, tensors: dict[str, Any], optimiser: Any) -> None:
        """The other way."""
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimiser."):
                _, number, key = name.split(".", 2)
                state.setdefault(int(number), {})[key] = tensor if tensor.dim() == 0 else shares_of(tensor, self.copies[int(number)])
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        self.take(tensors)

    def put(self, values: list[Any]) -> None:
        """Other weights in place of the present ones."""
        for copy, value in zip(self.copies, values, strict=True):
            copy.detach().copy_(value)
        self.give_back()


class Best:
    """Keeps the weights with the lowest validation loss."""

    def __init__(self, masters: Masters) -> None:
        self._masters = masters
        self._weights: list[Any] | None = None

    def offer(self, state: LoopState, loss: float) -> None:
        state.validation.append([state.step, loss])
        if loss <= min(value for _, value in state.validation):
            self._weights = [copy.detach().clone() for copy in self._masters.copies]
            state.best_step = state.step

    def restore(self) -> None:
        if self._weights is not None:
            self._masters.put(self._weights)

    def tensors(self) -> dict[str, Any]:
        """What a checkpoint holds of it: `best.<n>`."""
        return {f"best.{number}": whole(weight) for number, weight in enumerate(self._weights or [])}

    def load(self, tensors: dict[str, Any], state: LoopState) -> None:
        """The other way; with no best step yet there is nothing to load."""
        if state.best_step:
            self._weights = [shares_of(tensors[f"best.{number}"], copy) for number, copy in enumerate(self._masters.copies)]
