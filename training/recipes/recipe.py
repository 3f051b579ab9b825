"""Recipes: every choice that a run makes, in one frozen record that is stored with the run.

A recipe file in `training/recipes/` (or anywhere) is TOML with the same names; what it leaves out
takes the default here.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from training.recipes.methods import LORA_STARTS, METHODS, OPTIONAL_FIELDS, SMOOTHED_LOSSES
from whet.errors import InputError, NotFoundError
from whet.json_types import JsonObject

FOLDER = Path(__file__).parent
SCHEDULES = ("cosine", "linear", "constant")
DTYPES = ("auto", "bfloat16", "float32")
DEVICES = ("auto", "cpu", "cuda")
PRODUCTION = "production"  # as `init_from`: the version that answers under the alias now


# Fields that stand for a choice while they are None, and what they hold then
_CHOSEN: dict[str, type] = {"refit": bool, "rehearsal_share": float}
_SHARED = "0 where several processes share the training"

Rule = tuple[str, bool, str]  # field, whether it holds, what is expected


@dataclass(frozen=True, slots=True)
class Recipe:
    """0 in `learning_rate`, `threads` or `max_length` means: chosen at the start of the run, and
    stored as chosen.
    """

    method: str = "lora"
    rank: int = 32  # inner width of the adapter; the engine serves up to `engine_max_lora_rank`
    alpha: float = 64.0  # the update is scaled by alpha / rank
    # On the adapter's input; with few epochs on a small base it only slows learning
    dropout: float = 0.0
    # Names of layers that get an adapter; all-linear: every one but the output head
    target_modules: tuple[str, ...] = ("all-linear",)
    learning_rate: float = 0.0  # peak; 0: by the size of the base, see `resolved`
    # How the rate falls after warm-up; cosine and linear end at 2 % of the peak
    schedule: str = "cosine"
    warmup: float = 0.06  # share of all steps
    epochs: float = 4.0  # passes over the training rows
    # Rows per step; four passes in small steps learn on the built-in base what six passes in steps
    # of 8 do (docs/base-model.md)
    batch_size: int = 4
    # Of matrices; adapters are small and start at zero change; decay pulls them back to the base
    weight_decay: float = 0.0
    clip: float = 1.0  # largest gradient norm
    # Rows computed at once, their gradients summed to the step's (gradient accumulation); 0: all of
    # a step
    micro_batch: int = 0
    # Compute activations again in the backward pass: a third more time, a fraction of the memory
    gradient_checkpointing: bool = False
    # That share the rows of each step and the weights (FSDP), on this machine; micro_batch is of
    # each
    processes: int = 1
    # Wordings of each question over the passes (training/data/variants.py); 1: as it is; 0: 4 for
    # small sets
    question_variants: int = 0
    # Of each pass, rows whose passages say otherwise (training/data/counterfactual_mix.py)
    counterfactual_share: float = 0.0
    # Of each pass, general questions with the base's own answers (training/runs/rehearsal.py), so
    # that it keeps its skills; None: some for bases that have skills
    rehearsal_share: float | None = None
    # Models that cross-validation trains beside the version, each judged on its part of the rows;
    # 0: none
    folds: int = 0
    # After the verdict, train on all rows, held-out ones too, and store that; None: where the run
    # holds rows of a small set out itself
    refit: bool | None = None
    # Several rows to a sequence, each seeing itself alone; without it rows of like length share a
    # batch
    packing: bool = False
    # Checks on validation rows (one an epoch) without a new best before the run stops; 0: never
    patience: int = 3
    sample_every: int = 0  # steps between samplings of answers to held-out questions; 0: none
    # Tokens per row; a longer row is refused, never cut. 0: what the engine and the base both take
    max_length: int = 0
    # Of the computation; auto: what this machine is faster in, bfloat16 or float32
    dtype: str = "auto"
    # cuda: refused where there is no GPU, instead of training on the processor; cpu: a GPU is left
    # alone
    device: str = "auto"
    seed: int = 0
    # CPU threads; 0: one or all, whichever a measurement at the start finds faster
    threads: int = 0
    virtual_tokens: int = 20  # of a prefix or soft prompt; they take room from `max_length`
    # How hard DPO, KTO and RLHF hold to the model they began with; the weight of ORPO's odds ratio
    beta: float = 0.1
    loss_type: str = ""  # variant of DPO's or KTO's loss, by TRL's name; empty: the method's own
    # Share of pairs taken to be the wrong way round, by losses that read it
    label_smoothing: float = 0.0
    simpo_gamma: float = 0.5  # margin by which SimPO wants the chosen answer's reward to be higher
    samples: int = 4  # answers that RLHF writes to each question
    # Whom to distil: a model's folder (its probabilities), or the http(s) address of an
    # OpenAI-compatible endpoint (its answers)
    teacher: str = ""
    # Share of the teacher's probabilities in the loss; the rest is the rows' own answers
    kl_weight: float = 0.5
    temperature: float = 2.0  # at which the probabilities of teacher and student are compared
    # How A and B start, by PEFT's names; pissa and olora double the rank that is served
    init_lora_weights: str = "default"
    loraplus_lr_ratio: float = 1.0  # LoRA+: learning rate of B as a multiple of A's; 1: the same
    # NEFTune: size of the noise on embeddings while training; 0: none
    neftune_noise_alpha: float = 0.0
    # Adapter whose weights the run starts from: a label, a digest, or `production`; empty: from
    # nothing
    init_from: str = ""

    def __post_init__(self) -> None:
        for name, ok, expected in self._rules():
            if not ok:
                raise InputError(
                    f"The recipe's {name} is {getattr(self, name)!r}; expected {expected}.",
                    hint="docs/training.md lists every field.",
                )
        for field in fields(self):
            if (
                field.name in OPTIONAL_FIELDS - METHODS[self.method].reads
                and getattr(self, field.name) != field.default
            ):
                raise InputError(
                    f"The method {self.method} has no {field.name}.",
                    hint="Leave it out; docs/training-methods.md says what each method reads.",
                )

    def _rules(self) -> list[Rule]:
        return [
            *self._adapter_rules(),
            *self._step_rules(),
            *self._run_rules(),
            *self._method_rules(),
            *self._loss_rules(),
            *self._start_rules(),
            *self._regularisation_rules(),
        ]

    def _adapter_rules(self) -> list[Rule]:
        return [
            ("method", self.method in METHODS, f"one of {', '.join(METHODS)}"),
            ("rank", 1 <= self.rank <= 512, "1 to 512"),
            ("alpha", _finite(self.alpha) and self.alpha > 0, "a number above 0"),
            ("dropout", _finite(self.dropout) and 0 <= self.dropout < 1, "0 or more and below 1"),
            (
                "target_modules",
                bool(self.target_modules)
                and all(isinstance(name, str) and name for name in self.target_modules),
                "names of layers",
            ),
        ]

    def _step_rules(self) -> list[Rule]:
        return [
            ("learning_rate", _below_one(self.learning_rate), "0 (chosen) or a rate below 1"),
            ("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            ("warmup", _finite(self.warmup) and 0 <= self.warmup <= 1, "0 to 1"),
            ("epochs", _finite(self.epochs) and 0 < self.epochs <= 1000, "above 0, up to 1000"),
            ("batch_size", 1 <= self.batch_size <= 4096, "1 to 4096"),
            ("weight_decay", _below_one(self.weight_decay), "0 or more and below 1"),
            (
                "weight_decay",
                self.method != "ia3" or self.weight_decay == 0,
                "0: the factors of (IA)³ start at 1, and decay would pull them to 0",
            ),
            ("clip", _finite(self.clip) and self.clip > 0, "a number above 0"),
            ("micro_batch", 0 <= self.micro_batch <= 4096, "0 (all rows of a step) to 4096"),
            (
                "processes",
                1 <= self.processes <= min(64, self.batch_size),
                "1 to 64, and a row of each step for each of them (batch_size)",
            ),
        ]

    def _run_rules(self) -> list[Rule]:
        return [
            ("question_variants", 0 <= self.question_variants <= 100, "0 (chosen) to 100"),
            ("counterfactual_share", _up_to_half(self.counterfactual_share), "0 (none) to 0.5"),
            ("rehearsal_share", _up_to_half(self.rehearsal_share or 0.0), "0 (none) to 0.5"),
            (
                "folds",
                self.folds == 0 or 2 <= self.folds <= 20,
                "0 (no cross-validation) or 2 to 20",
            ),
            ("folds", not self.folds or self.processes == 1, _SHARED),
            (
                "refit",
                not self.refit or self.processes == 1,
                "false where several processes share the training",
            ),
            ("patience", 0 <= self.patience <= 1000, "0 (never stop early) to 1000"),
            ("sample_every", self.sample_every >= 0, "0 (no samples) or a number of steps"),
            ("sample_every", not self.sample_every or self.processes == 1, _SHARED),
            ("device", self.device in DEVICES, f"one of {', '.join(DEVICES)}"),
            (
                "max_length",
                self.max_length == 0 or self.max_length >= 8,
                "0 (chosen) or at least 8 tokens",
            ),
            ("dtype", self.dtype in DTYPES, f"one of {', '.join(DTYPES)}"),
            ("seed", 0 <= self.seed < 1 << 32, "0 to 4294967295"),
            ("threads", 0 <= self.threads <= 1024, "0 (chosen) to 1024"),
        ]

    def _method_rules(self) -> list[Rule]:
        return [
            ("virtual_tokens", 1 <= self.virtual_tokens <= 1024, "1 to 1024"),
            ("beta", _finite(self.beta) and 0 < self.beta <= 10, "above 0, up to 10"),
            (
                "samples",
                2 <= self.samples <= 64,
                "2 to 64: rewards are compared with those of the other answers",
            ),
            ("kl_weight", _finite(self.kl_weight) and 0 < self.kl_weight <= 1, "above 0, up to 1"),
            (
                "teacher",
                not self.teacher_address or bool(self.teacher_address.partition("#")[2]),
                "a folder, or an address with the model's name after a #",
            ),
            (
                "temperature",
                _finite(self.temperature) and 0 < self.temperature <= 100,
                "above 0, up to 100",
            ),
        ]

    def _regularisation_rules(self) -> list[Rule]:
        return [
            (
                "loraplus_lr_ratio",
                _finite(self.loraplus_lr_ratio) and 1 <= self.loraplus_lr_ratio <= 1024,
                "1 (both at one rate) to 1024",
            ),
            (
                "neftune_noise_alpha",
                _finite(self.neftune_noise_alpha) and 0 <= self.neftune_noise_alpha <= 100,
                "0 (no noise) to 100",
            ),
        ]

    def _loss_rules(self) -> list[Rule]:
        """Return the rules of what preference methods minimise: (field, whether it holds, what is
        expected).
        """
        method = METHODS.get(self.method)
        losses = method.losses if method else ()
        is_read = method is not None and "label_smoothing" in method.reads
        smoothing, is_smoothed = self.label_smoothing, self.loss_type in SMOOTHED_LOSSES
        return [
            (
                "loss_type",
                not losses or self.loss_type in ("", *losses),
                f"one of {', '.join(losses)}",
            ),
            (
                "label_smoothing",
                _finite(smoothing) and 0 <= smoothing < 0.5,
                "0 or more and below 0.5",
            ),
            (
                "label_smoothing",
                not is_read or is_smoothed or smoothing == 0,
                f"0: only the losses {', '.join(SMOOTHED_LOSSES)} read it (loss_type)",
            ),
            (
                "label_smoothing",
                self.loss_type != "exo_pair" or smoothing > 0,
                "a number above 0 with the loss exo_pair, such as 0.001",
            ),
            (
                "simpo_gamma",
                _finite(self.simpo_gamma) and 0 <= self.simpo_gamma <= 100,
                "0 to 100",
            ),
        ]

    def _start_rules(self) -> list[Rule]:
        """Return the rules of how the matrices of a LoRA start, as `_loss_rules` does."""
        start = self.init_lora_weights
        known = start in LORA_STARTS or re.fullmatch(r"pissa_niter_[1-9]\d{0,2}", start) is not None
        return [
            ("init_lora_weights", known, f"one of {', '.join(LORA_STARTS)}, pissa_niter_16"),
            (
                "init_lora_weights",
                start == "default" or not self.init_from,
                (
                    "default where a run goes on from a version (init_from), whose weights it"
                    " starts with"
                ),
            ),
            (
                "rank",
                start != "orthogonal" or self.rank % 2 == 0,
                "an even number where init_lora_weights is orthogonal",
            ),
        ]

    @property
    def changes_base(self) -> bool:
        """Whether the matrices start with a part of the base's weights, which training takes out of
        the base (PiSSA, OLoRA)."""
        return self.init_lora_weights.startswith(("pissa", "olora"))

    @property
    def served_rank(self) -> int:
        """Rank of the version: converted to a plain LoRA of the unchanged base, PiSSA and OLoRA
        have twice the rank."""
        return 2 * self.rank if self.changes_base else self.rank

    @property
    def teacher_address(self) -> str:
        """The endpoint that teaches, as `http(s)://host/v1#MODEL`; empty where the teacher is a
        folder.
        """
        return self.teacher if self.teacher.startswith(("http://", "https://")) else ""

    def as_json(self) -> JsonObject:
        return {**asdict(self), "target_modules": list(self.target_modules)}


def _finite(value: float) -> bool:
    return math.isfinite(value)


def _below_one(value: float) -> bool:
    return _finite(value) and 0 <= value < 1


def _up_to_half(value: float) -> bool:
    return _finite(value) and 0 <= value <= 0.5


def recipe_from(values: Mapping[str, object], base: Recipe | None = None) -> Recipe:
    """`base` (or the defaults) with `values` in place of its fields.

    Raises InputError that names the wrong field.
    """
    base = base or Recipe()
    known = {field.name: type(getattr(base, field.name)) for field in fields(Recipe)}
    known |= _CHOSEN
    changed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise InputError(f"A recipe has no field {name!r}.", hint=f"It has {', '.join(known)}.")
        is_open = name in _CHOSEN and value is None
        changed[name] = None if is_open else _cast(name, value, known[name])
    return replace(base, **changed)


def _cast(name: str, value: object, kind: type) -> object:
    if kind is tuple:
        names = [value] if isinstance(value, str) else value
        if isinstance(names, list | tuple) and all(isinstance(item, str) for item in names):
            return tuple(names)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif (kind is int and isinstance(value, int) and not isinstance(value, bool)) or (
        kind in (str, bool) and isinstance(value, kind)
    ):
        return value
    words = {
        tuple: "a list of names",
        float: "a number",
        int: "a whole number",
        str: "a text",
        bool: "true or false",
    }[kind]
    raise InputError(
        f"The recipe's {name} is {value!r}; expected {words}.",
        hint="docs/training.md lists every field.",
    )


def load_recipe(reference: str = "lora") -> Recipe:
    """A recipe by the name of a file in `training/recipes`, or by the path of a TOML file."""
    path = Path(reference) if reference.endswith(".toml") else FOLDER / f"{reference}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        names = ", ".join(sorted(file.stem for file in FOLDER.glob("*.toml")))
        raise NotFoundError(
            f"There is no recipe {reference!r}.",
            hint=f"Known recipes: {names}; or give the path of a .toml file.",
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"The recipe {path} cannot be read: {error}.") from error
    return recipe_from(values)
