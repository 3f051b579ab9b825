"""Searching a recipe: Optuna proposes, the training loop tries on the validation part, hopeless
trials end early. The test part is never looked at.

The trials lie in a SQLite file of Optuna's own in the home folder, so a search that was stopped
goes on, and several processes can work at one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace

import optuna
from optuna import Study, Trial
from optuna.trial import FrozenTrial
from torch import nn

from training.data import datasets
from training.data.split import group_key
from training.loop.faults import translate_oom
from training.loop.trainer import Step, train
from training.plan.prepare import Prepared
from training.recipes.methods import METHODS, OPTIONAL_FIELDS
from training.recipes.recipe import Recipe
from training.runs.load_model import load, pad_token
from training.runs.search_page import SearchResults, page
from whet.context import Context
from whet.errors import InputError, TrainingError
from whet.store import digest_bytes, digest_json

PARAMETERS = ("learning_rate", "rank", "epochs", "batch_size", "alpha")
PRUNERS = ("median", "hyperband")
# Where no validation part exists, so much of the training rows is put aside for the search alone;
# what is found trains on all of them.
VALIDATION_SHARE = 0.15
_FEWEST = 8  # validation rows below which the loss on them says nothing about a recipe
_RATE_SPAN = (0.1, 4.0)  # times the rate that would be chosen by size
# Alpha is a scale times the rank
_RANKS, _BATCHES, _SCALES = (4, 8, 16, 32, 64, 128), (4, 8, 16, 32), (1, 2, 4)
_MOST_EPOCHS = 12
_STARTUP_TRIALS = 4  # that the median pruner lets run to their end before it compares


@dataclass(frozen=True)
class Plan:
    """What is searched. `parameters` are names out of PARAMETERS."""

    parameters: tuple[str, ...]
    pruner: str = "median"
    seed: int = 0
    max_rank: int = 64  # that the engine serves

    def __post_init__(self) -> None:
        unknown = [name for name in self.parameters if name not in PARAMETERS]
        if unknown or not self.parameters:
            raise InputError(
                f"Expected parameters out of {', '.join(PARAMETERS)}, found"
                f" {', '.join(unknown) or 'none'}."
            )
        if self.pruner not in PRUNERS:
            raise InputError(f"Expected the pruner {' or '.join(PRUNERS)}, found {self.pruner!r}.")


def require_searchable(recipe: Recipe, parameters: Sequence[str]) -> None:
    """Raises InputError for a method whose trials this could not train as its runs do, or that does
    not read what is to be searched.
    """
    method = METHODS[recipe.method]
    if not method.own_loop or "teacher" in method.reads:
        raise InputError(
            f"A search tries rows and recipes in Whet's own loop; the method {method.name} needs"
            " more than that.",
            hint=(
                "Search with lora and carry over what it finds, or compare recipes by `whet train"
                " run`."
            ),
        )
    if recipe.processes > 1:
        raise InputError(
            "A search runs each trial in one process.",
            hint="Leave processes out of the recipe, and use it with what the search finds.",
        )
    unread = [name for name in parameters if name in OPTIONAL_FIELDS - method.reads]
    if unread:
        raise InputError(
            f"The method {method.name} has no {', '.join(unread)}.",
            hint="Leave it out of --params.",
        )


def with_validation(dataset: datasets.Dataset) -> datasets.Dataset:
    """The dataset with a validation part, of its own or out of its training part.

    Raises InputError for too few rows.
    """
    if not dataset.validation:
        # By another hash than the one that parted train from test, which these rows have passed
        # already.
        aside = {
            key
            for key in map(group_key, dataset.train)
            if int(digest_bytes(f"search {key}".encode())[:12], 16) < VALIDATION_SHARE * 16**12
        }
        train, validation = (
            [row for row in dataset.train if (group_key(row) in aside) is wanted]
            for wanted in (False, True)
        )
        dataset = replace(dataset, train=train, validation=validation)
    if len(dataset.validation) < _FEWEST:
        raise InputError(
            f"A search needs at least {_FEWEST} validation rows to compare by, found"
            f" {len(dataset.validation)}.",
            hint="Give more rows with different questions.",
        )
    return dataset


class Search:
    """One study over one prepared run; `folder` holds its trials and what comes of it."""

    def __init__(self, context: Context, prepared: Prepared, plan: Plan) -> None:
        self._context, self._prepared, self._plan = context, prepared, plan
        # Whoever asks for the same search goes on with it.
        name = digest_json(
            [
                prepared.dataset.digest,
                prepared.base.digest,
                replace(prepared.recipe, threads=0, dtype="auto").as_json(),
                asdict(plan),
            ]
        )
        self.folder = context.settings.home / "searches" / name[:12]

    @property
    def prepared(self) -> Prepared:
        return self._prepared

    def study(self, *, together: bool = False) -> Study:
        """The study, made when it is not there yet.

        `together`: several trials run at once, so proposals keep away from those that have not
        ended.
        """

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.RDBStorage(f"sqlite:///{self.folder / 'trials.db'}")
        median = optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS)
        pruner = (
            median
            if self._plan.pruner == "median"
            else optuna.pruners.HyperbandPruner(max_resource=_MOST_EPOCHS)
        )
        study = optuna.create_study(
            study_name="search", storage=storage, pruner=pruner, load_if_exists=True
        )
        # A sampler that went on with the same seed would propose the first trials again.
        study.sampler = optuna.samplers.TPESampler(
            seed=self._plan.seed + len(study.trials), constant_liar=together
        )
        return study

    def run(
        self,
        *,
        trials: int | None,
        seconds: float | None,
        on_trial: Callable[[int, float | None], None],
        on_step: Callable[[int, int], None],
    ) -> None:
        """Try until so many trials have ended in all, or so many seconds have passed; after each,
        `on_trial(ended, best loss)`.

        `on_step(step, steps)` follows the trial at work; it may raise to stop.
        """
        study = self.study()
        if trials is not None and len(ended(study)) >= trials:
            return

        def told(study: Study, trial: FrozenTrial) -> None:
            on_trial(len(ended(study)), best_loss(study))
            if trials is not None and len(ended(study)) >= trials:
                study.stop()

        study.optimize(
            lambda trial: self._try(trial, on_step),
            timeout=seconds,
            callbacks=[told],
            catch=(TrainingError,),
        )

    def _try(self, trial: Trial, on_step: Callable[[int, int], None]) -> float:
        """Best validation loss of one recipe.

        Raises TrialPruned when others were better at the same epoch, TrainingError when the run
        failed.
        """

        recipe = self.propose(trial)

        def on_check(number: int, loss: float) -> None:
            trial.report(loss, number)
            if trial.should_prune():
                raise optuna.TrialPruned

        prepared = replace(self._prepared, recipe=recipe)
        try:
            return best_of(
                lambda: load(self._context, prepared), prepared, on_step=on_step, on_check=on_check
            )
        except TrainingError as error:
            trial.set_user_attr("error", str(error))
            raise

    def propose(self, trial: Trial) -> Recipe:
        """A recipe of the space, noted with the trial; what is not searched stays as it is."""
        recipe = self._proposed(trial)
        trial.set_user_attr("recipe", recipe.as_json())
        return recipe

    def _proposed(self, trial: Trial) -> Recipe:
        recipe, wanted = self._prepared.recipe, self._plan.parameters
        if "rank" in wanted:
            rank = trial.suggest_categorical("rank", self._ranks())
            # So that the scale, alpha / √rank or alpha / rank, stays
            power = 0.5 if recipe.method == "rslora" else 1.0
            recipe = replace(recipe, rank=rank, alpha=recipe.alpha * (rank / recipe.rank) ** power)
        if "alpha" in wanted:
            recipe = replace(
                recipe,
                alpha=float(recipe.rank * trial.suggest_categorical("alpha_by_rank", _SCALES)),
            )
        if "learning_rate" in wanted:
            low, high = (share * self._prepared.recipe.learning_rate for share in _RATE_SPAN)
            recipe = replace(
                recipe,
                learning_rate=trial.suggest_float("learning_rate", low, min(high, 0.5), log=True),
            )
        if "epochs" in wanted:
            recipe = replace(recipe, epochs=float(trial.suggest_int("epochs", 1, _MOST_EPOCHS)))
        if "batch_size" in wanted:
            recipe = replace(
                recipe,
                batch_size=trial.suggest_categorical(
                    "batch_size", [size for size in _BATCHES if size <= len(self._prepared.train)]
                ),
            )
        return recipe

    def _ranks(self) -> list[int]:
        """Return the ranks whose versions the engine serves."""
        recipe, limit = self._prepared.recipe, self._plan.max_rank
        return [rank for rank in _RANKS if replace(recipe, rank=rank).served_rank <= limit]

    def write_results(self) -> SearchResults:
        """Write `best.toml` and `search.html` into the folder.

        Raises TrainingError when no trial came to its end.
        """

        study = self.study()
        finished = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
        if not finished:
            said = next(
                (
                    trial.user_attrs["error"]
                    for trial in study.trials
                    if "error" in trial.user_attrs
                ),
                "",
            )
            raise TrainingError(
                f"No trial of the search came to its end. {said}".strip(),
                hint="Give it more trials or minutes.",
            )
        best, found = study.best_trial, importances(study)
        recipe = self.propose_again(best)
        (self.folder / "best.toml").write_text(
            as_toml(
                recipe, f"Found by a search: trial {best.number}, validation loss {best.value:.4f}."
            ),
            encoding="utf-8",
        )
        (self.folder / "search.html").write_text(page(study, found), encoding="utf-8")
        states = [trial.state.name for trial in study.trials]
        return {
            "trials": {
                name.lower(): states.count(name)
                for name in ("COMPLETE", "PRUNED", "FAIL")
                if name in states
            },
            "best": {
                "trial": best.number,
                "validation_loss": round(float(best.value or 0.0), 5),
                **best.params,
            },
            "importances": found,
            "recipe": str(self.folder / "best.toml"),
            "picture": str(self.folder / "search.html"),
        }

    def propose_again(self, trial: FrozenTrial) -> Recipe:
        """The recipe of a trial that has ended, for training on all rows: the threads are measured
        again, the rest stays.
        """

        return replace(self._proposed(optuna.trial.FixedTrial(trial.params)), threads=0)  # type: ignore[arg-type]


def best_of(
    load: Callable[[], nn.Module],
    prepared: Prepared,
    *,
    on_step: Callable[[int, int], None],
    on_check: Callable[[int, float], None],
) -> float:
    """Train one recipe on what `load` returns; its lowest loss on validation rows.

    `on_step(step, steps)` and `on_check(number from 1, validation loss)` may raise to stop. Raises
    TrainingError when the run fails.
    """

    told = 0

    def follow(step: Step) -> None:
        nonlocal told
        on_step(step.step, step.steps)
        if len(step.validation) > told:
            told = len(step.validation)
            on_check(told, step.validation[-1][1])

    with translate_oom(prepared.recipe):
        done = train(
            load(),
            prepared.train,
            prepared.validation,
            prepared.recipe,
            pad_id=pad_token(prepared),
            on_step=follow,
            variants=prepared.variants,
        )
    return min(loss for _, loss in done.validation)


def ended(study: Study) -> list[FrozenTrial]:
    """Trials that are over, well or not; one that was killed is none."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


def best_loss(study: Study) -> float | None:
    """The lowest validation loss so far."""
    values = [
        trial.value
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name == "COMPLETE" and trial.value is not None
    ]
    return min(values, default=None)


def importances(study: Study) -> dict[str, float]:
    """Share of the differences in loss that each parameter explains (Optuna's fANOVA: a random
    forest over the finished trials); {} with too few to tell.
    """

    finished = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    varied = [
        name
        for name in (finished[0].params if finished else {})
        if len({trial.params[name] for trial in finished}) > 1
    ]
    if (
        len(finished) < _STARTUP_TRIALS
        or not varied
        or len({trial.value for trial in finished}) < 2
    ):
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return {
        name: round(float(share), 4)
        for name, share in optuna.importance.get_param_importances(
            study, evaluator=evaluator, params=varied
        ).items()
    }


def as_toml(recipe: Recipe, comment: str) -> str:
    """A recipe file; TOML writes texts, numbers, true and false, and lists of texts as JSON does."""
    values = recipe.as_json()
    return f"# {comment}\n" + "".join(
        f"{field.name} = {json.dumps(values[field.name])}\n" for field in fields(recipe)
    )
