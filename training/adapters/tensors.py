"""Reads a stranger's LoRA matrices and writes them in one form.

One form: bfloat16 where that loses nothing, one rank and one scale for all layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open

from training.adapters.config import DeclaredAdapter
from training.adapters.names import LoraName
from training.models.base_model import BaseModel
from training.models.lora import PREFIX
from whet.errors import AdapterError

_DTYPES = ("F64", "F32", "F16", "BF16")  # safetensors' names of what LoRA matrices are trained in
_NOT_GATHERED = (
    "DeepSpeed ZeRO-3 and FSDP write empty or flat tensors when the weights are not gathered: save "
    "with the trainer's save_model (stage3_gather_16bit_weights_on_model_save, "
    "state_dict_type FULL_STATE_DICT)."
)


class Slice(Protocol):
    """A tensor in a file that was not read yet."""

    def get_shape(self) -> Sequence[int]: ...

    def get_dtype(self) -> str: ...


class OpenFile(Protocol):
    """What is called of an open safetensors file."""

    def get_slice(self, name: str) -> Slice: ...

    def get_tensor(self, name: str) -> torch.Tensor: ...


class TensorFiles:
    """The tensors of one or several safetensors files by their names."""

    def __init__(self, files: dict[str, OpenFile]) -> None:
        self._files = files  # tensor name → the open file that holds it

    @property
    def names(self) -> list[str]:
        return sorted(self._files)

    def shape(self, name: str) -> list[int]:
        return list(self._files[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """safetensors' name of it, such as BF16."""
        return str(self._files[name].get_slice(name).get_dtype())

    def tensor(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._files[name].get_tensor(name)
        return tensor


@contextmanager
def open_tensors(paths: tuple[Path, ...]) -> Iterator[TensorFiles]:
    """Raises AdapterError for a file that is torn, and for a tensor that two files hold."""
    try:
        with ExitStack() as stack:
            files: dict[str, OpenFile] = {}
            for path in paths:
                opened = stack.enter_context(safe_open(str(path), framework="pt"))
                for name in opened.keys():  # noqa: SIM118
                    if name in files:
                        raise AdapterError(
                            f"{path.name} holds {name[:120]!r}, and another file does too.",
                            hint="Copy the adapter again.",
                        )
                    files[name] = opened
            yield TensorFiles(files)
    except (SafetensorError, OSError) as error:
        raise AdapterError(
            f"{paths[0].name} is not a whole safetensors file: {error}.",
            hint="Copy or save it again.",
        ) from error


def read_matrices(
    tensors: TensorFiles, names: list[LoraName], ranks: dict[str, int], base: BaseModel
) -> dict[str, torch.Tensor]:
    """Stored name → matrix as it lies in the file, each of the shape its layer and rank ask for.

    `ranks`: layer → rank. Raises AdapterError.
    """
    parts: dict[str, set[str]] = {}
    found = {}
    for lora in names:
        _check_shape(tensors, lora, ranks[lora.module], base)
        kind = tensors.dtype(lora.name)
        if kind not in _DTYPES:
            raise AdapterError(
                f"{lora.name} is stored as {kind}; expected one of {', '.join(_DTYPES)}.",
                hint="Save it in bfloat16 or float32.",
            )
        found[lora.stored_name] = tensors.tensor(lora.name)
        parts.setdefault(lora.module, set()).add(lora.part)
    half = next((module for module, seen in parts.items() if seen != {"A", "B"}), None)
    if half is not None:
        raise AdapterError(
            f"The layer {half} has only one of lora_A and lora_B.",
            hint="Copy or save the adapter again.",
        )
    return found


def _check_shape(tensors: TensorFiles, lora: LoraName, rank: int, base: BaseModel) -> None:
    outputs, inputs = base.linear_shapes[lora.module]
    expected = [rank, inputs] if lora.part == "A" else [outputs, rank]
    found = tensors.shape(lora.name)
    if found == expected:
        return
    width = inputs if lora.part == "A" else outputs
    if len(found) != 2 or 0 in found:
        hint = _NOT_GATHERED
    elif found == expected[::-1]:
        hint = "It lies the other way round than PEFT writes it: transpose it."
    elif found[1 if lora.part == "A" else 0] == width:
        hint = (
            f"Its configuration names another rank than its weights have: set r (or rank_pattern) "
            f"in adapter_config.json to {found[0 if lora.part == 'A' else 1]}."
        )
    else:
        hint = f"It belongs to another base: the layer has {outputs} outputs and {inputs} inputs."
    raise AdapterError(
        f"{lora.name} has the shape {found}; with rank {rank} on {base.name} it is {expected}.",
        hint=hint,
    )


def to_one_dtype(matrices: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """All matrices in bfloat16 when that is what they are or loses nothing, else in `dtype`.

    So an adapter is one version whatever it was saved in: PEFT writes bfloat16 weights as float32.
    Raises AdapterError for NaN and Infinity, which a narrower dtype can bring, too.
    """
    is_exact = all(bool((t.to(torch.bfloat16).to(t.dtype) == t).all()) for t in matrices.values())
    found = {}
    for name, tensor in matrices.items():
        keep = tensor.dtype == torch.bfloat16  # which every machine takes as it is
        found[name] = tensor.to(torch.bfloat16 if keep or is_exact else dtype).contiguous()
        if not bool(torch.isfinite(found[name]).all()):
            raise AdapterError(
                f"{name} holds NaN or Infinity; expected finite weights.",
                hint="The training that made it went wrong; train again."
                if not bool(torch.isfinite(tensor).all())
                else f"Its values do not fit {found[name].dtype}: the training went wrong.",
            )
    return found


@dataclass(frozen=True)
class UniformAdapter:
    """Matrices of one rank, all scaled by the same number."""

    weights: dict[str, torch.Tensor]  # stored name → matrix
    rank: int
    alpha: float
    uses_rslora: bool
    notice: str = ""


def make_uniform(
    weights: dict[str, torch.Tensor],
    declared: DeclaredAdapter,
    ranks: dict[str, int],
    alphas: dict[str, float],
) -> UniformAdapter:
    """Writes layers of different rank or alpha as plain LoRA of one rank and one scale.

    The rank is the largest one; smaller matrices get rows and columns of zeros, which change
    nothing. The scale is that of most layers (of equally many the larger); the lora_B of another
    layer is multiplied by its own scale over that one, in float32, and rounded once. So patterns
    that make no difference are the adapter without them, to the digest.

    `ranks` and `alphas`: layer → its own.
    """
    rank = max(ranks.values())
    if len({(ranks[module], alphas[module]) for module in ranks}) == 1:
        alpha = next(iter(alphas.values()))
        return UniformAdapter(weights, rank, alpha, declared.uses_rslora)
    scales = {module: declared.scale(ranks[module], alphas[module]) for module in ranks}
    counts = Counter(scales.values())
    scale = max(counts, key=lambda value: (counts[value], value))
    uniform = {}
    for module, own in scales.items():
        a, b = (f"{PREFIX}{module}.lora_{part}.weight" for part in "AB")
        uniform[a] = torch.nn.functional.pad(weights[a], (0, 0, 0, rank - ranks[module]))
        matrix = weights[b] if own == scale else _scaled(weights[b], own / scale)
        uniform[b] = torch.nn.functional.pad(matrix, (0, rank - ranks[module]))
    said = []
    if len(set(ranks.values())) > 1:
        said.append(
            f"ranks {_numbers(ranks.values())} by layer: smaller ones were filled with zeros to "
            f"{rank}"
        )
    if len(counts) > 1:
        changed = sum(own != scale for own in scales.values())
        said.append(
            f"scales {_numbers(scales.values())} by layer: {scale:g} was kept and lora_B of "
            f"{changed} layers multiplied by their share of it"
        )
    notice = f"It has {'; it has '.join(said)} (rank_pattern, alpha_pattern)."
    return UniformAdapter(uniform, rank, scale * rank, False, notice)


def _scaled(matrix: torch.Tensor, factor: float) -> torch.Tensor:
    scaled = (matrix.float() * factor).to(matrix.dtype).contiguous()
    if not bool(torch.isfinite(scaled).all()):
        raise AdapterError(
            f"A lora_B multiplied by {factor:g}, for its alpha_pattern, is too large for "
            f"{matrix.dtype}.",
            hint="Train it with smaller alphas.",
        )
    return scaled


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(set(values)))


def changes_something(adapter: UniformAdapter, scale: float) -> bool:
    """Whether the scaled product of a layer's matrices is other than zero, after rounding."""
    names = [name for name in adapter.weights if ".lora_A." in name]
    pairs = (
        (adapter.weights[a].float(), adapter.weights[a.replace(".lora_A.", ".lora_B.")].float())
        for a in names
    )
    return any(bool((scale * (b @ a)).any()) for a, b in pairs)
