"""Reinforcement learning from human feedback (Ouyang et al. 2022) by TRL: a reward model from
preferences (Bradley-Terry), then RLOO (Ahmadian et al. 2024), which needs no value model: each
answer's reward is compared with those of the other answers to the same question.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack, cast

import torch
import trl.trainer.reward_trainer
import trl.trainer.rloo_trainer  # noqa: F401
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForSequenceClassification
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from training.loop.checkpoint import Checkpoints
from training.loop.diagnostics import warn_weak_rewards
from training.loop.generation import answer_limit
from training.loop.pairs import Pair, pairs
from training.loop.trainer import Loop, Step, Trained
from training.machine.allocator import keep_few_kernels, return_memory
from training.machine.device import device
from training.methods import trl_trainer as common
from training.methods.loop import rows
from training.methods.preference import loss
from training.methods.trl_progress import Progress, trained
from training.methods.trl_trainer import on_plain_base as candidate
from training.models.lora import add_lora, cast_parameters, target_names
from training.plan.prepare import Prepared
from training.plan.reporter import Reporter

__all__ = ["build", "candidate", "loss", "rows", "run"]

Score = Callable[[list[list[int]]], list[float]]  # whole conversations as token ids → rewards

_REWARD = "reward."  # before the numbers of the reward model's weights in a checkpoint


def build(prepared: Prepared) -> PeftModel:
    keep_few_kernels()
    # Now, so that the estimate of memory knows what the library takes.
    return add_lora(prepared.base.load_model(prepared.recipe.dtype), prepared.recipe)


def run(model: PeftModel, prepared: Prepared, reporter: Reporter, **loop: Unpack[Loop]) -> Trained:
    """Reward model, then policy.

    The figure of the second is the mean reward with its sign changed, in the reward model's units.

    The reward model has checkpoints of its own until the first of the policy is written; each of
    those holds the reward model, so that a run which is taken up again learns from the same
    rewards.
    """
    found, resume, recipe = (
        pairs(prepared.encoder, prepared.dataset.train),
        loop["resume"],
        prepared.recipe,
    )
    judge = reward_base(prepared, loop["pad_id"])
    kept = loop["checkpoints"].of_part("reward")
    judge_seconds = 0.0
    if resume is None:
        judge_seconds = train_rewards(
            judge,
            prepared,
            found,
            lambda step: reporter.working("reward model", step.step, step.steps),
            kept,
        )
    else:
        _put(_learned(judge), _held(resume.tensors, _REWARD))
    score = scorer(judge.eval(), loop["pad_id"])
    followed = Progress(
        recipe, loop["on_step"], len(found), _per_question(prepared, found) * _together(prepared, found),
        read=lambda logs: -logs["reward"] if "reward" in logs else None, falls=False,
        checkpoints=loop["checkpoints"], resume=resume, beside=_numbered(_REWARD, _learned(judge)),
    )  # fmt: skip
    if resume is None:
        followed.state.earlier = judge_seconds
        weak = warn_weak_rewards(preferred(score, found, recipe.batch_size), len(found))
        followed.state.signs += [weak] if weak else []
        followed.write({})
    kept.remove()
    reporter.stage("training")
    return _policy(model, prepared, found, score, followed)


def reward_base(prepared: Prepared, pad_id: int) -> PeftModel:
    """The base with LoRA and one output, untrained. The same for the same recipe."""

    recipe = prepared.recipe
    torch.manual_seed(recipe.seed)
    bare = AutoModelForSequenceClassification.from_pretrained(
        str(prepared.base.folder),
        num_labels=1,
        dtype=getattr(torch, recipe.dtype),
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    ).to(device())
    bare.config.pad_token_id = pad_id
    # The output is trained whole, so in float32 beside a base that may compute in bfloat16.
    bare.score.register_forward_pre_hook(lambda head, given: (given[0].to(head.weight.dtype),))
    layers = target_names(bare, recipe.target_modules, served=True, head=bare.score)
    alpha = cast(int, recipe.alpha)  # as in `add_lora`: a fraction is as good
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=alpha,
        target_modules=layers,
        task_type="SEQ_CLS",
        modules_to_save=["score"],
    )
    judge = get_peft_model(bare, config, autocast_adapter_dtype=False)
    cast_parameters(
        (weight for weight in judge.parameters() if weight.requires_grad),
        getattr(torch, recipe.dtype),
    )
    cast_parameters(
        (
            weight
            for name, weight in judge.named_parameters()
            if weight.requires_grad and ".score." in name
        ),
        torch.float32,
    )
    return judge


def train_rewards(
    judge: PeftModel,
    prepared: Prepared,
    found: list[Pair],
    on_step: Callable[[Step], None],
    kept: Checkpoints | None = None,
) -> float:
    """Train a reward model in place, so that chosen answers get more than rejected ones; from where
    the last attempt left it in `kept`. Returns the seconds of all attempts.
    """

    class Trainer(common.Ready, RewardTrainer):
        pass

    recipe = prepared.recipe
    rows = Dataset.from_list(
        [
            {
                "chosen_ids": [*each.prompt, *each.chosen],
                "rejected_ids": [*each.prompt, *each.rejected],
            }
            for each in found
        ]
    )
    followed = Progress(
        recipe,
        on_step,
        len(found),
        sum(each.tokens for each in found) / len(found) * recipe.batch_size,
        checkpoints=kept,
        resume=kept.resume() if kept else None,
    )
    with followed.folder() as folder:
        config = common.on_one_gpu(
            RewardConfig(
                **common.arguments(prepared, folder, len(found)), max_length=recipe.max_length
            )
        )
        followed.train(
            Trainer(
                judge, args=config, train_dataset=rows, processing_class=prepared.base.tokenizer
            )
        )
    return followed.state.seconds


def scorer(judge: PeftModel, pad_id: int) -> Score:
    """What a reward model makes of conversations.

    The classification head reads the last token before the padding.
    """

    def score(conversations: list[list[int]]) -> list[float]:
        length = max(map(len, conversations))
        where = next(judge.parameters()).device
        ids = torch.tensor(
            [each + [pad_id] * (length - len(each)) for each in conversations], device=where
        )
        mask = torch.tensor(
            [[1] * len(each) + [0] * (length - len(each)) for each in conversations], device=where
        )
        last = torch.tensor([len(each) - 1 for each in conversations], device=where)
        with torch.inference_mode():
            hidden = (
                cast(Any, judge.get_base_model())
                .model(input_ids=ids, attention_mask=mask)
                .last_hidden_state
            )
            return [
                float(value)
                for value in cast(Any, judge.get_base_model()).score(
                    hidden[torch.arange(len(ids), device=where), last]
                )[:, 0]
            ]

    return score


def preferred(score: Score, found: list[Pair], batch_size: int) -> int:
    """Of how many pairs the chosen answer gets more than the rejected one; `batch_size` pairs are
    scored together.
    """
    right = 0
    for first in range(0, len(found), batch_size):
        some = found[first : first + batch_size]
        rewards = score(
            [[*each.prompt, *answer] for each in some for answer in (each.chosen, each.rejected)]
        )
        right += sum(
            chosen > rejected for chosen, rejected in zip(rewards[::2], rewards[1::2], strict=True)
        )
    return right


def _learned(model: PeftModel) -> list[nn.Parameter]:
    """The parameters that are trained, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _numbered(prefix: str, tensors: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors under the names by which a checkpoint holds them."""
    return {f"{prefix}{number}": tensor.detach() for number, tensor in enumerate(tensors)}


def _held(tensors: Mapping[str, torch.Tensor], prefix: str) -> list[torch.Tensor]:
    """The other way, in the order they were given in."""
    found = {
        int(name.removeprefix(prefix)): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    return [found[number] for number in sorted(found)]


def _put(parameters: Sequence[nn.Parameter], weights: Sequence[torch.Tensor]) -> None:
    """Other weights in place of the present ones; no weights change nothing."""

    with torch.no_grad():
        for parameter, weight in zip(parameters, weights, strict=bool(weights)):
            parameter.copy_(weight)


def _together(prepared: Prepared, found: list[Pair]) -> int:
    """Questions of a step: TRL's sampler leaves out the rows that fill no batch."""
    return min(prepared.recipe.batch_size, len(found))


def _answer_tokens(found: list[Pair]) -> int:
    return answer_limit(max(len(each.chosen) for each in found))


def _per_question(prepared: Prepared, found: list[Pair]) -> float:
    """Tokens of a question's conversations, each answer as long as it may be."""
    return prepared.recipe.samples * (
        sum(len(each.prompt) for each in found) / len(found) + _answer_tokens(found)
    )


def _arguments(prepared: Prepared, folder: str, found: list[Pair]) -> RLOOConfig:
    """TRL's settings of the policy's training."""
    recipe = prepared.recipe
    shared = common.arguments(prepared, folder, len(found))
    shared["per_device_train_batch_size"] = _together(prepared, found) * recipe.samples
    return common.on_one_gpu(
        RLOOConfig(
            **shared,
            beta=recipe.beta,
            num_generations=recipe.samples,
            max_completion_length=_answer_tokens(found),
        )
    )


def _policy(
    model: PeftModel, prepared: Prepared, found: list[Pair], score: Score, followed: Progress
) -> Trained:
    recipe, batch = prepared.recipe, _together(prepared, found)
    epochs_done = followed.state.step // (len(found) // batch)

    class Trainer(common.Bare, RLOOTrainer):
        def _tokenize_prompts(
            self, prompts: list[str]
        ) -> tuple[list[list[int]], None, dict[str, object]]:
            return [json.loads(prompt) for prompt in prompts], None, {}

        def _generate(self, prompts: list[str]) -> Any:
            """The caches of answers grow by a token at a time and leave holes in the heap, into
            which nothing of the step fits that follows.
            """
            made = super()._generate(prompts)
            return_memory()
            return made

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            """TRL's draws each epoch's order from one source; a run that goes on is in its middle."""
            sampler = super()._get_train_sampler(dataset)
            for _ in range(epochs_done):
                next(iter(sampler))
            return sampler

    def reward(
        prompts: list[str], completion_ids: list[list[int]], **_: object
    ) -> list[float | None]:
        return list(
            score(
                [
                    [*json.loads(prompt), *ids]
                    for prompt, ids in zip(prompts, completion_ids, strict=True)
                ]
            )
        )

    model.generation_config.eos_token_id = sorted(prepared.base.stop_ids)
    # Token ids as JSON: the trainer carries a question as a text, and asks for its tokens where
    # they are needed.
    rows = Dataset.from_list([{"prompt": json.dumps(each.prompt)} for each in found])
    with followed.folder() as folder:
        followed.train(
            Trainer(
                model,
                reward_funcs=reward,
                args=_arguments(prepared, folder, found),
                train_dataset=rows,
                processing_class=prepared.base.tokenizer,
            )
        )
    tokens, steps = followed.state.tokens, followed.state.step
    asked = recipe.samples * batch * steps * sum(len(each.prompt) for each in found) / len(found)
    return trained(followed, tokens, max(0, round(tokens - asked)))
