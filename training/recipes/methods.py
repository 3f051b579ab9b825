"""Every method as one record: what it learns, which rows and fields of a recipe it reads, and what
the engine can do with the result.

Plain data: commands read it before anything heavy is imported. What a method does lies in its
family's module, see `family`.
"""

from __future__ import annotations

from dataclasses import dataclass

from whet.errors import InputError

# What the engine can do with the result.
ADAPTER = "adapter"  # load it beside others: it becomes a version under an alias
MODEL = "model"  # serve it as a base of its own: a whole model folder with merged weights
FOLDER = "folder"  # nothing: a PEFT folder for transformers

# Which rows a method learns from.
# Conversations and prompts with the right answer; of preferences the chosen one
ANSWERS = "answers"
PREFERENCES = "preferences"  # a question with a better and a worse answer
RATINGS = "ratings"  # answers with "rating": 1 or -1; a preference is one of each

_LORA = frozenset({"rank", "alpha", "dropout", "target_modules", "init_from", "loraplus_lr_ratio"})

_MEMORY = frozenset({"micro_batch", "gradient_checkpointing"})
_OWN = frozenset(
    {
        "patience",
        "question_variants",
        "counterfactual_share",
        "rehearsal_share",
        "folds",
        "refit",
        "sample_every",
    }
)  # of our own loop
_LOOP = _MEMORY | _OWN | {"packing", "neftune_noise_alpha"}
_VIRTUAL = frozenset({"virtual_tokens", "micro_batch"}) | _OWN
# TRL turns it off: a policy and what it is compared with would differ by chance
_POLICY = _LORA - {"dropout"}
_PAIRS = _POLICY | _MEMORY | {"patience", "beta", "sample_every"}
_STARTS = frozenset({"init_lora_weights"})  # of matrices that are compared with no other model
# And whose weights can be held in shares: neither 4-bit ones, nor a teacher beside them
_SHARDED = _LOOP | {"processes"}
# Fields that only some methods read; all others are read by every one.
OPTIONAL_FIELDS = (
    _LORA
    | _VIRTUAL
    | _SHARDED
    | {"beta", "samples", "teacher", "kl_weight", "temperature"}
    | {"loss_type", "label_smoothing", "simpo_gamma", "init_lora_weights"}
)

# Ways to start the two matrices, by PEFT's names; `pissa_niter_N` as well.
LORA_STARTS = ("default", "gaussian", "orthogonal", "pissa", "olora")

# Losses of TRL's DPO and KTO trainers, the default first. DPO's `sft` is left out: it learns the
# chosen answers and never looks at the rejected ones, as lora does.
_DPO_LOSSES = (
    "sigmoid", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "aot",
    "aot_unpaired", "apo_zero", "apo_down", "discopop", "sigmoid_norm",
)  # fmt: skip
APO_ZERO_UNPAIRED = "apo_zero_unpaired"
_KTO_LOSSES = ("kto", APO_ZERO_UNPAIRED)
SMOOTHED_LOSSES = ("robust", "exo_pair", "aot", "aot_unpaired")  # that read `label_smoothing`


@dataclass(frozen=True, slots=True)
class Method:
    """One way to train."""

    name: str
    module: str  # in training.methods
    learns: str  # one sentence: what is changed, by what
    engine: str  # ADAPTER | MODEL | FOLDER
    reads: frozenset[str]  # those of OPTIONAL_FIELDS that it reads
    rows: str = ANSWERS
    rate: float = 1.0  # peak learning rate, as a multiple of what LoRA takes on a base of this size
    said: str = ""  # before the first step
    losses: tuple[str, ...] = ()  # values of `loss_type`, the default first

    @property
    def own_loop(self) -> bool:
        """Whether `training/loop/trainer.py` trains it; else a trainer of TRL's does."""
        return self.rows == ANSWERS

    @property
    def becomes(self) -> str:
        """What comes of a run, in words."""
        return {
            ADAPTER: "a version under its alias",
            MODEL: "a merged model folder (--into)",
            FOLDER: "a PEFT folder (--into)",
        }[self.engine]


_MERGED = (
    "What comes of it is a whole model: serve it as a base of its own (WHET_BASE_MODEL), or train"
    " lora or rslora for a version under an alias."
)
_VIRTUAL_ONLY = (
    "vLLM serves no {}, and they cannot be merged into weights: what comes of it is a PEFT folder"
    " for transformers. For the engine train lora or rslora; ia3 changes as few weights and can be"
    " merged."
)

# Rates: full fine-tuning moves every weight, so it takes a tenth; DPO, KTO, ORPO and RLHF go on
# from answers that are there already, and at LoRA's rate they unlearn them; a few vectors ((IA)³,
# prompts) need larger steps. Order of magnitude as in the methods' papers.
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("lora", "adapters", "Low-rank matrices beside every linear layer.", ADAPTER, _LORA | _STARTS | _SHARDED),
        Method(
            "rslora",
            "adapters",
            "LoRA scaled by alpha / √rank, so that a large rank still learns.",
            ADAPTER,
            _LORA | _STARTS | _SHARDED,
            rate=0.5,
        ),
        Method(
            "qlora",
            "adapters",
            "LoRA over a base held in 4 bits (NF4, double quantisation).",
            ADAPTER,
            _LORA | _LOOP,
            said="The base is held in 4 bits while training only: judging, parity and serving use it in 16 bits, as the engine does; a GPU without "
            "room for that leaves judging to the processor.",
        ),
        Method(
            "dora",
            "adapters",
            "LoRA with each column's length learned apart from its direction.",
            MODEL,
            _LORA - {"init_from"} | _SHARDED,
            said=f"vLLM does not serve DoRA adapters. {_MERGED}",
        ),
        Method("full", "whole", "Every weight of the base.", MODEL, _SHARDED, rate=0.1, said=f"Every weight changes, so there is no adapter. {_MERGED}"),
        Method(
            "prefix",
            "virtual",
            "Keys and values of virtual tokens before every layer's attention.",
            FOLDER,
            _VIRTUAL,
            rate=3.0,
            said=_VIRTUAL_ONLY.format("prefixes"),
        ),
        Method("prompt", "virtual", "Embeddings of virtual tokens before the text.", FOLDER, _VIRTUAL, rate=10.0, said=_VIRTUAL_ONLY.format("soft prompts")),
        Method(
            "ia3", "layers", "One factor for each key, value and inner unit, (IA)³.", MODEL, _SHARDED, rate=3.0, said=f"vLLM serves no (IA)³. {_MERGED}"
        ),
        Method(
            "bottleneck",
            "layers",
            "A small network with a non-linear bottleneck for every linear layer (PEANuT).",
            MODEL,
            frozenset({"rank", "target_modules"}) | _SHARDED,
            rate=0.5,
            said="The library for bottleneck adapters does not run with this transformers; PEANuT is the nearest that PEFT has. "
            f"vLLM serves neither. {_MERGED}",
        ),
        Method(
            "dpo",
            "preference",
            "Prefer chosen answers to rejected ones, by a logistic loss (DPO) or one of its variants.",
            ADAPTER,
            _PAIRS | {"loss_type", "label_smoothing"},
            PREFERENCES,
            rate=0.1,
            losses=_DPO_LOSSES,
        ),
        Method(
            "kto",
            "preference",
            "More of answers rated up, less of those rated down (KTO).",
            ADAPTER,
            _PAIRS | {"loss_type"},
            RATINGS,
            rate=0.1,
            losses=_KTO_LOSSES,
        ),
        Method(
            "simpo",
            "preference",
            "Prefer chosen answers by mean log-probability and a margin, without a reference (SimPO).",
            ADAPTER,
            _PAIRS | {"simpo_gamma"},
            PREFERENCES,
            rate=0.1,
        ),
        Method("orpo", "preference", "The chosen answer, and the odds against the rejected one, at once (ORPO).", ADAPTER, _PAIRS, PREFERENCES, rate=0.3),
        Method(
            "rlhf",
            "rlhf",
            "A reward model from preferences, then answers that it rewards (RLOO).",
            ADAPTER,
            _POLICY - {"loraplus_lr_ratio"} | {"beta", "samples", "gradient_checkpointing"},
            PREFERENCES,
            rate=0.1,
            said="A reward model is trained first, then the adapter writes answers and learns from "
            "their rewards; the estimate below counts all three. The curve shows the mean reward with "
            "its sign changed.",
        ),
        Method(
            "distill",
            "distill",
            "What a larger model would say: its probabilities, or its answers.",
            ADAPTER,
            _LORA
            | _STARTS
            | (
                _LOOP
                - {"question_variants", "counterfactual_share", "rehearsal_share", "folds", "refit"}
            )
            | {"teacher", "kl_weight", "temperature"},
        ),
    )
}  # fmt: skip


def find(name: str) -> Method:
    """Raises InputError with the known names."""
    if name not in METHODS:
        raise InputError(
            f"The method is {name!r}; expected one of {', '.join(METHODS)}.",
            hint="`whet train methods` says what each is.",
        )
    return METHODS[name]
