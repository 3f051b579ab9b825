"""The options of `whet train run`."""

from __future__ import annotations

import typer

FILE = typer.Argument(
    None,
    metavar="[FILE]",
    help="Training rows: JSONL, JSON, CSV, Parquet, or a folder that `datasets` saved.",
)
DATASET = typer.Option(
    "", "--dataset", help="A dataset version instead of a file, such as support@v2."
)
ALIAS = typer.Option("", "--alias", help="Name of the adapter. Default: the setting default_alias.")
TEST = typer.Option(None, "--test", help="File of rows to judge by, instead of a part of FILE.")
DROP_LEAKS = typer.Option(
    False,
    "--drop-leaks",
    help=(
        "Go on where more than a tenth of the rows has to be dropped to prevent train/test leakage."
    ),
)
NO_SPLIT = typer.Option(
    False,
    "--no-split",
    help="Train on every row of FILE; without --test nothing can be compared.",
)
REPEATS = typer.Option(
    "keep",
    "--repeats",
    help="Exact repeats: keep, weight (one row with their weights added up), or remove.",
)
RECIPE_NAME = typer.Option(
    "",
    "--recipe",
    help=("A recipe in training/recipes, or the path of a .toml file. Default: the method's own."),
)
METHOD = typer.Option(
    "",
    "--method",
    help=(
        "How to train; `whet train methods` lists them. Default: what the recipe says, lora"
        " without one."
    ),
)
INTO = typer.Option(
    None,
    "--into",
    help=(
        "Where the result goes of a method that the engine cannot serve as an adapter; a new"
        " folder."
    ),
)
TEACHER = typer.Option(
    None, "--teacher", help="For distill: a model's folder, or http(s)://host/v1#MODEL."
)
RANK = typer.Option(None, "--rank", help="Inner width of the adapter.")
ALPHA = typer.Option(
    None,
    "--alpha",
    help=(
        "Scale: the update is multiplied by alpha / rank. Default: twice the rank; with rslora"
        " what its recipe says."
    ),
)
EPOCHS = typer.Option(None, "--epochs", help="Passes over the training rows.")
BATCH_SIZE = typer.Option(None, "--batch-size", help="Rows per step.")
LEARNING_RATE = typer.Option(
    None,
    "--learning-rate",
    "--lr",
    help="Peak learning rate. Default: by the size of the base.",
)
MICRO_BATCH = typer.Option(
    None,
    "--micro-batch",
    help=(
        "Rows computed at once; gradients are summed to those of --batch-size rows. Default:"
        " all of them."
    ),
)
GRADIENT_CHECKPOINTING = typer.Option(
    None,
    "--gradient-checkpointing/--no-gradient-checkpointing",
    help="Compute activations twice to keep fewer: slower, less memory, same result.",
)
PROCESSES = typer.Option(
    None,
    "--processes",
    help="Processes that share the training on this machine (torchrun, FSDP). Default: 1.",
)
PACKING = typer.Option(
    None, "--packing/--no-packing", help="Several rows to a sequence, each seeing itself alone."
)
QUESTION_VARIANTS = typer.Option(
    None,
    "--question-variants",
    help=(
        "Wordings of each question over the passes; 1: as they are. Default: 4 below 5,000 rows."
    ),
)
COUNTERFACTUAL_SHARE = typer.Option(
    None,
    "--counterfactual-share",
    help=(
        "Share of the training, 0 to 0.5, that is rows whose passages (`context`) say"
        " otherwise, so that the model goes on reading them. Default: 0."
    ),
)
REHEARSAL_SHARE = typer.Option(
    None,
    "--rehearsal-share",
    help=(
        "Share of the training, 0 to 0.5, that is general questions as the base answers them,"
        " so that it keeps what it can do. Default: 0.15 for bases above 50 M parameters, else"
        " 0."
    ),
)
FOLDS = typer.Option(
    None,
    "--folds",
    help=(
        "Judge by cross-validation with so many models beside the version, which is trained on"
        " all rows. Default: 5 for sets too small for a test."
    ),
)
REFIT = typer.Option(
    None,
    "--refit/--no-refit",
    help=(
        "After the verdict, train on all rows, held-out ones too, and store that. Default: yes"
        " for up to 1,000 rows, unless --test gives the rows to judge by."
    ),
)
PATIENCE = typer.Option(
    None,
    "--patience",
    help="Checks on validation rows without a new best before the run stops; 0: never.",
)
SAMPLE_EVERY = typer.Option(
    None,
    "--sample-every",
    help=(
        "Steps between samplings: a few held-out questions are answered while training."
        " Default: 0, none."
    ),
)
DEVICE = typer.Option(
    None, "--device", help="auto, cpu, or cuda to refuse a machine without a GPU."
)
MAX_LENGTH = typer.Option(
    None,
    "--max-length",
    help="Tokens per row; longer rows are refused. At most what engine and base take.",
)
DROPOUT = typer.Option(None, "--dropout", help="On the adapter's input, 0 to below 1.")
WARMUP = typer.Option(
    None, "--warmup", help="Share of all steps in which the learning rate rises, 0 to 1."
)
SCHEDULE = typer.Option(
    None,
    "--schedule",
    help="How the learning rate falls afterwards: cosine, linear or constant.",
)
TARGET_MODULES = typer.Option(
    None,
    "--target-modules",
    help=(
        "Layers that get an adapter, by the ends of their names: q_proj,v_proj. Default:"
        " all-linear."
    ),
)
WEIGHT_DECAY = typer.Option(None, "--weight-decay", help="Of AdamW, on matrices.")
SET = typer.Option(
    [],
    "--set",
    metavar="FIELD=VALUE",
    help="Any other field of a recipe (docs/training.md); may be given again.",
)
SEED = typer.Option(
    None, "--seed", help="Same seed, data, base and threads: same weights, on a CPU."
)
THREADS = typer.Option(None, "--threads", help="CPU threads. Default: measured at the start.")
INIT_FROM = typer.Option(
    None, "--init-from", help="Start from this adapter's weights: a label, or 'production'."
)
SKIP_BAD = typer.Option(
    False, "--skip-bad", help="Leave out rows that cannot be learned from, instead of refusing."
)
ON = typer.Option(
    "",
    "--on",
    help="ray, or ray=http://HOST:8265: train as a job of a Ray cluster instead of here.",
)
NO_REPORT = typer.Option(
    False,
    "--no-report",
    help="Judge on held-out rows alone; `whet eval run` makes the report later.",
)
FULL_REPORT = typer.Option(
    False,
    "--full-report",
    help=(
        "Ask every probe for the report. Default: as many as a quarter of the training's time"
        " allows."
    ),
)
DRY_RUN = typer.Option(
    False, "--dry-run", help="Only print tokens, steps, expected time, memory by part and cost."
)
PRICE_PER_HOUR = typer.Option(
    0.0,
    "--price-per-hour",
    min=0.0,
    help="What the machine costs an hour: --dry-run prints what the training will cost.",
)
