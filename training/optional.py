"""Parts that few runs need, by name: heavy libraries, and those that `make setup` leaves out.

Each is loaded by `whet.lazy.load` where it is needed.
"""

from __future__ import annotations

LABEL_SUSPECTS = "training.data.label_suspects:suspects_of_task"  # cleanlab and scikit-learn: 2.7 s
DATASET_FOLDERS = "training.data.dataset_folders"  # Hugging Face datasets: 1.3 s
ROUGE = "rouge_score.rouge_scorer:RougeScorer"  # which imports NLTK
WORDNET = "training.data.wordnet:wordnet_synonyms"  # NLTK: 1.5 s
HARNESS_TASKS = "training.evaluation.harness_tasks:task_manager"  # lm-evaluation-harness
HARNESS_EVALUATE = "training.evaluation.harness_tasks:evaluate"
WANDB = "training.runs.tracker_wandb:WandbTracker"
MLFLOW = "training.runs.tracker_mlflow:MlflowTracker"
# Ray reads its environment once, when it is imported: `places.require_ray` sets it before
RAY = "ray"
RAY_QUEUE = "ray.util.queue:Queue"
RAY_JOBS = "ray.job_submission:JobSubmissionClient"
RAY_REFUSAL = "ray.exceptions:AuthenticationError"
# Which PEFT and transformers remember of bitsandbytes
PEFT_CHECKS = "peft.import_utils"
TRANSFORMERS_CHECKS = "transformers.utils.import_utils"
TRANSFORMERS_UTILS = "transformers.utils"
