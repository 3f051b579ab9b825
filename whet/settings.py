"""Settings: `whet.toml` in the home folder, overridden by environment variables `WHET_…`.

Every field documents its unit and the reason for its default; `docs/settings.md` is checked against
this file.
"""

from __future__ import annotations

import os
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from whet.errors import ConfigurationError
from whet.named_bases import named_base_folder
from whet.template_kwargs import parse_template_kwargs
from whet.urls import credentials_problem, mask_url, parse_origins

BUILTIN_BASE = Path(__file__).parent / "assets" / "base"

# Seconds that our servers keep an idle connection: beyond the five of usual client pools. Who
# closes first decides, because a request sent just while the server closes comes back as
# "disconnected", and a client cannot tell whether it was heard.
IDLE_CONNECTION_S = 75


# Settings whose values are secrets themselves; of the others only passwords inside URLs are.
SECRET_SETTINGS = frozenset({"embedder_key", "engine_key", "notify_urls", "reranker_key"})


class Settings(BaseSettings):
    """All settings.

    Build with `load_settings()`, pass on as an argument; nothing reads the environment later.
    """

    model_config = SettingsConfigDict(
        env_prefix="WHET_", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    home: Path = Field(
        Path(".whet"),
        description="State folder: database, files, spool, logs. Relative to the current folder.",
    )
    database_url: str = Field(
        "",
        description=(
            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE (postgres:// too) or "
            "sqlite:///FILE; special characters in a password are percent-encoded. "
            "Empty: SQLite in the home folder, which needs no server."
        ),
    )
    store_url: str = Field(
        "",
        description=(
            "fsspec URL for datasets, adapters and reports. Empty: `store` in the home folder."
        ),
    )

    base_model: str = Field(
        "",
        description=(
            "Folder or hub id of the base model, or a name that `whet base fetch` knows, "
            "such as smollm2. Empty: the built-in tiny model, so that nothing is downloaded."
        ),
    )
    base_alias: str = Field(
        "base", description="The name by which applications address the base model."
    )
    default_alias: str = Field(
        "support", description="The alias that commands use when none is named."
    )

    engine_urls: str = Field(
        "",
        description="Comma-separated URLs of running engine replicas. Empty: `whet up` starts one.",
    )
    engine_port: int = Field(
        8001, ge=1, le=65535, description="Loopback port of the engine that `whet up` starts."
    )
    engine_key: str = Field(
        "",
        description=(
            "Key the engine asks for. Empty: made at first start and kept in the home folder."
        ),
    )
    engine_max_lora_rank: int = Field(
        64,
        description=(
            "Largest adapter rank the engine accepts; slots of this size are allocated at its"
            " start."
        ),
    )
    engine_max_loras: int = Field(
        4,
        ge=0,
        description=(
            "Adapters active in one batch: stable, candidate, previous and one to compare. 0: none,"
            " the engine serves the base alone."
        ),
    )
    engine_max_cpu_loras: int = Field(
        64,
        ge=1,
        description=(
            "Adapters resident per engine process. Evicted adapters are re-read from disk inside"
            " the engine's step, so this stays above what is ever loaded."
        ),
    )
    engine_max_model_len: int = Field(
        1024,
        ge=64,
        description=(
            "Tokens of prompt and answer together. An engine on a base with fewer positions serves"
            " as many as the base has."
        ),
    )
    engine_dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto",
        description=(
            "What the engine computes in. auto: the dtype of the base's files, or what the machine"
            " has in its place; float32 takes twice the memory and has no rounding noise."
        ),
    )
    engine_kv_cache_gib: int = Field(
        1, ge=1, description="GiB of key-value cache on the CPU engine; a GPU engine ignores it."
    )
    engine_start_timeout_s: float = Field(
        300,
        gt=0,
        description=(
            "Seconds until an engine that is not ready is called failed; a cold CPU start takes"
            " about 50."
        ),
    )

    gateway_host: str = Field(
        "127.0.0.1", description="Address of the gateway. Loopback until an operator opens it."
    )
    gateway_port: int = Field(8000, ge=1, le=65535, description="Port of the gateway.")
    gateway_workers: int = Field(
        1, ge=1, description="Gateway processes; one serves thousands of requests a second."
    )
    console_host: str = Field(
        "127.0.0.1", description="Address of the console. Loopback until an operator opens it."
    )
    console_port: int = Field(8080, ge=1, le=65535, description="Port of the console.")
    metrics_host: str = Field(
        "127.0.0.1",
        description="Address of that port; a scraper on another machine needs it opened.",
    )
    metrics_port: int = Field(
        8082,
        ge=1,
        le=65535,
        description=(
            "Loopback port where the scheduler offers drift and loop metrics to Prometheus."
        ),
    )

    request_max_bytes: int = Field(
        1 << 20,
        ge=1024,
        description="Largest request body in bytes; a longer one is refused with 413.",
    )
    head_timeout_s: float = Field(
        15,
        gt=0,
        description=(
            "Seconds in which the head of a request has to arrive after its first byte; "
            "a head is a few hundred bytes, so only a broken or hostile client needs longer."
        ),
    )
    body_timeout_s: float = Field(
        60,
        gt=0,
        description=(
            "Seconds in which the body of a request has to arrive; "
            "the largest body then needs 17 kB/s."
        ),
    )
    cors_origins: str = Field(
        "",
        description=(
            "Comma-separated origins whose pages may call the gateway from a browser, "
            "such as https://app.example.com; `*` for every page. Empty: none."
        ),
    )
    allowed_template_kwargs: str = Field(
        "",
        description=(
            "Comma-separated names that a request's `chat_template_kwargs` may hold, each "
            "with a text, a number or a truth value, such as enable_thinking. Empty: none, since a "
            "template may do anything with them."
        ),
    )
    schema_max_bytes: int = Field(
        65_536,
        ge=256,
        description=(
            "Largest constraint on an answer in bytes: a JSON schema, a regex, a grammar, "
            "a list of choices, a tool's parameters. The engine compiles it while others wait."
        ),
    )
    schema_max_nodes: int = Field(
        5_000,
        ge=16,
        description=(
            "Most values and keys in one constraint; 5,000 take the engine about half a "
            "second on two cores."
        ),
    )
    schema_max_depth: int = Field(
        64,
        ge=4,
        description=(
            "Deepest nesting of objects and lists in one constraint; the engine itself stops at 64."
        ),
    )
    schema_max_alternatives: int = Field(
        64,
        ge=2,
        description=(
            "Most branches of anyOf, oneOf and allOf in one constraint, those that only "
            "name a plain type not counted. Nesting multiplies them."
        ),
    )
    request_timeout_s: float = Field(
        600, gt=0, description="Seconds after which an unfinished completion is cut."
    )
    log_durability: Literal["normal", "full"] = Field(
        "normal",
        description=(
            "`normal`: a row survives a killed process. `full`: also a power loss, at one disk"
            " flush per batch."
        ),
    )

    embedder: str = Field(
        "",
        description=(
            "What makes vectors of texts for retrieval and /v1/embeddings: a folder as"
            " sentence-transformers saves it, or the URL of an OpenAI-compatible endpoint (up to"
            " /v1). Empty: all-MiniLM-L6-v2, which set-up installs. A change re-embeds in the"
            " background."
        ),
    )
    embedder_model: str = Field("", description="Name of the model at the embedder's endpoint.")
    embedder_key: str = Field(
        "", description="Key that the embedder's endpoint asks for. Empty: none is sent."
    )
    embedder_max_tokens: int = Field(
        512, ge=16, description="Tokens that the model at the embedder's endpoint reads of a text."
    )
    embedder_query_prefix: str = Field(
        "", description="What the embedder wants before a question. Empty: what its folder says."
    )
    embedder_passage_prefix: str = Field(
        "", description="What the embedder wants before a passage, such as `passage: `."
    )
    embedder_threads: int = Field(
        0, ge=0, description="Texts that are embedded at the same time. 0: one per core."
    )
    reranker: str = Field(
        "",
        description=(
            "What orders the first hits of a search anew: a cross-encoder's folder as"
            " sentence-transformers saves it, or the URL before /rerank of an endpoint in the shape"
            " of Cohere, Jina and vLLM. Empty: nothing."
        ),
    )
    reranker_model: str = Field("", description="Name of the model at the reranker's endpoint.")
    reranker_key: str = Field(
        "", description="Key of the reranker's endpoint. Empty: none is sent."
    )
    reranker_candidates: int = Field(
        30, ge=2, le=200, description="Hits that the reranker reads; more of them cost time."
    )
    query_rewrite_s: float = Field(
        0,
        ge=0,
        le=10,
        description=(
            "Seconds that the base may take to make the last question of a conversation"
            " self-contained before it is searched. 0: it is searched as it stands."
        ),
    )
    retrieval_url: str = Field(
        "",
        description=(
            "Address of a running retrieval process, such as http://127.0.0.1:8003. "
            "Empty: `whet up` starts one."
        ),
    )
    retrieval_port: int = Field(
        8003, ge=1, le=65535, description="Loopback port of the retrieval process of `whet up`."
    )

    rollout_auto: bool = Field(
        True,
        description=(
            "Start a rollout by itself when a candidate has passed its gate; false waits for a"
            " person."
        ),
    )
    rollout_steps: str = Field(
        "0.1,0.5,1.0", description="Shares of traffic a candidate gets, in order."
    )
    rollout_min_requests: int = Field(
        200, ge=1, description="Candidate answers needed at each step before the next."
    )
    rollout_max_hours: float = Field(
        24,
        gt=0,
        description="Hours after which a step with too little traffic is given up and rolled back.",
    )

    drift_interval_s: float = Field(3600, gt=0, description="Seconds between drift runs.")
    drift_window: int = Field(
        2000,
        ge=20,
        description="Most recent interactions that form the current window of a drift run.",
    )
    drift_rows_per_user: int = Field(
        3,
        ge=1,
        description=(
            "Interactions of one end user that count in a drift window; more would let one busy"
            " user look like drift."
        ),
    )
    drift_alpha: float = Field(
        0.01,
        gt=0,
        lt=0.5,
        description=(
            "Chance that a drift run finds anything although nothing changed, over all its signals"
            " together."
        ),
    )
    drift_min_rows: int = Field(
        50,
        ge=10,
        description="Rows below which a drift run says 'not enough data' and nothing else.",
    )
    drift_target: float = Field(
        0.5,
        ge=0.01,
        le=50,
        description=(
            "False incidents per 100 days that are bearable, over all signals of an alias; lower is"
            " quieter and slower."
        ),
    )
    scores_per_hour: int = Field(
        60,
        ge=0,
        le=3600,
        description=(
            "Answers of each alias, drawn at random, whose log-probabilities the engine is asked"
            " for afterwards; each costs it two prompts. 0: none."
        ),
    )
    notify_urls: str = Field(
        "",
        description=(
            "Where alerts are sent, as Apprise URLs separated by spaces: slack://…, mailtos://…,"
            " json://… and many others. A secret: such URLs hold passwords."
        ),
    )
    alertmanager_url: str = Field(
        "",
        description=(
            "Address of a Prometheus Alertmanager that is told of every open alert, such as"
            " http://127.0.0.1:9093; empty: none."
        ),
    )
    console_url: str = Field(
        "",
        description=(
            "Address under which people reach the console, for links in messages and for forms"
            " behind a proxy that does not pass Host on; default: console_host and console_port."
        ),
    )
    flag_interval_s: float = Field(
        60, gt=0, description="Seconds between runs that put conversations into the review queue."
    )
    review_budget: int = Field(
        200,
        ge=1,
        description=(
            "Conversations the queue takes in per day and alias; attention is the scarce thing."
        ),
    )
    review_claim_s: float = Field(
        900, gt=0, description="Seconds a reviewer holds a conversation before another may take it."
    )
    retrain_auto: bool = Field(
        True,
        description="Let the policy ask for training by itself; false only says that it would.",
    )
    retrain_min_examples: int = Field(
        100,
        ge=1,
        description=(
            "New reviewed examples before the policy asks for training: those that the "
            "next dataset version has and the last training had not."
        ),
    )
    retrain_cooldown_s: float = Field(
        24 * 3600, ge=0, description="Seconds between two training requests for one alias."
    )
    retrain_quiet_s: float = Field(
        600,
        ge=0,
        description=(
            "Seconds without a decision after which a review counts as over; before that the policy"
            " asks for training only when the queue is empty, so that a version has the whole"
            " review. Longer than one difficult conversation takes. 0: never wait for reviewers."
        ),
    )
    retrain_review_wait_s: float = Field(
        7200,
        ge=0,
        description=(
            "Longest wait for the end of a review, in seconds from when training could "
            "have been asked for: a review that never ends must not keep a correction from users."
        ),
    )
    retrain_recipe: str = Field(
        "continue",
        min_length=1,
        description=(
            "Recipe of trainings that the policy or a person asks for: a name in training/recipes"
            " or a TOML file. `continue` goes on from the live version, `lora` starts from the"
            " base."
        ),
    )
    checkpoint_interval_s: float = Field(
        60,
        ge=0,
        description=(
            "Seconds between checkpoints of a training run, besides those at epoch ends: what a"
            " killed run may lose. 0: after each step."
        ),
    )
    wandb_project: str = Field(
        "",
        description=(
            "Weights & Biases project that follows training runs; empty: none. Its own WANDB_"
            " variables say where and as whom."
        ),
    )
    mlflow_tracking_uri: str = Field(
        "",
        description="MLflow tracking server, or a folder, that follows training runs; empty: none.",
    )
    scheduler_tick_s: float = Field(
        30, gt=0, description="Seconds between looks at the retraining policy."
    )
    worker_poll_s: float = Field(
        5, gt=0, description="Seconds between looks for a training request."
    )
    retention_days: int = Field(
        365,
        ge=1,
        description=(
            "Days a conversation is kept, with its ratings and what is derived of it; the night"
            " after, the scheduler deletes it, unless a standing example or an open incident needs"
            " it. A year shows seasons; below 35 days weekly error rates are worked out for fewer"
            " weeks."
        ),
    )

    @field_validator("home")
    @classmethod
    def _absolute_home(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("allowed_template_kwargs")
    @classmethod
    def _template_kwargs(cls, value: str) -> str:
        parse_template_kwargs(value)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        parse_origins(value)
        return value

    @field_validator("engine_urls")
    @classmethod
    def _no_credentials(cls, value: str) -> str:
        if any("@" in url for url in value.split(",")):
            raise ValueError(
                "engines are asked with WHET_ENGINE_KEY; leave user and password out of their URLs"
            )
        return value

    @field_validator(
        "alertmanager_url", "embedder", "mlflow_tracking_uri", "reranker", "retrieval_url"
    )
    @classmethod
    def _encoded_credentials(cls, value: str) -> str:
        if problem := credentials_problem(value):
            raise ValueError(problem)
        return value

    @field_validator("embedder_key", "engine_key", "reranker_key")
    @classmethod
    def _header_value(cls, value: str) -> str:
        if value != value.strip() or not all(" " <= character <= "~" for character in value):
            raise ValueError("a key is sent in a header: printable ASCII, no spaces around it")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        home = Path(init_settings().get("home") or os.environ.get("WHET_HOME") or ".whet")
        return (
            init_settings,
            env_settings,
            TomlConfigSettingsSource(settings_cls, home / "whet.toml"),
        )

    @cached_property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home / 'whet.db'}"

    @cached_property
    def resolved_store_url(self) -> str:
        return self.store_url or str(self.home / "store")

    @cached_property
    def resolved_base_model(self) -> str:
        """A folder or a hub id. The folder of a named base need not exist: `require_fetched`."""
        named = named_base_folder(self.home, self.base_model)
        return str(named) if named else self.base_model or str(BUILTIN_BASE)

    @cached_property
    def replica_urls(self) -> list[str]:
        """The engine replicas to use; one on loopback when none is configured."""
        given = [url.strip().rstrip("/") for url in self.engine_urls.split(",") if url.strip()]
        return given or [f"http://127.0.0.1:{self.engine_port}"]

    @cached_property
    def resolved_retrieval_url(self) -> str:
        """The retrieval process to ask; the one on loopback when none is configured."""
        return self.retrieval_url.rstrip("/") or f"http://127.0.0.1:{self.retrieval_port}"

    @cached_property
    def allowed_origins(self) -> list[str]:
        """The origins whose pages may call the gateway; `["*"]` for all."""
        return parse_origins(self.cors_origins)

    @cached_property
    def template_kwargs(self) -> frozenset[str]:
        """Names that `chat_template_kwargs` of a request may hold."""
        return parse_template_kwargs(self.allowed_template_kwargs)

    @property
    def starts_engine(self) -> bool:
        return not self.engine_urls.strip()

    @cached_property
    def rollout_shares(self) -> list[float]:
        try:
            shares = [float(part) for part in self.rollout_steps.split(",")]
        except ValueError:
            shares = []
        if not shares or sorted(shares) != shares or shares[-1] != 1.0 or shares[0] <= 0:
            raise ConfigurationError(
                f"rollout_steps is {self.rollout_steps!r}; expected rising shares that end in 1.0.",
                hint="Set WHET_ROLLOUT_STEPS to something like 0.1,0.5,1.0.",
            )
        return shares


def load_settings(**overrides: object) -> Settings:
    """Read `whet.toml` and the environment.

    Raises ConfigurationError that names the setting and what it should be.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise _invalid_setting(error) from None  # pydantic's own text holds the value
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"whet.toml in the home folder cannot be read: {error}.",
            hint="Correct the file or its permissions, or set WHET_HOME to a folder of yours.",
        ) from error


def _invalid_setting(error: ValidationError) -> ConfigurationError:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"]) or "settings"
    if first["type"] == "extra_forbidden":  # its value may be a password under a mistyped name
        return ConfigurationError(
            f"There is no setting {name!r}.",
            hint="Correct its name in whet.toml; docs/settings.md lists them all.",
        )
    problem = str(first["msg"]).removeprefix("Value error, ")
    shown = "" if name in SECRET_SETTINGS else f" has the value {_shown(first.get('input'))}:"
    hint = (
        f"Correct WHET_{name.upper()} or the entry in whet.toml; docs/settings.md lists them all."
    )
    return ConfigurationError(
        f"Setting {name!r}{shown or ' is not what it should be:'} {problem}.", hint=hint
    )


def _shown(value: object) -> str:
    return repr(mask_url(value) if isinstance(value, str) else value)
