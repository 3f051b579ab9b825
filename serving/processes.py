"""The processes `whet up` starts for serving: one engine and the retrieval process (unless
their addresses are given), and the gateway."""

from __future__ import annotations

import sys
from pathlib import Path

from serving.base import Base, base_of
from serving.gateway.request_types import MAX_LOGPROBS
from whet.access import engine_key
from whet.context import Context
from whet.errors import ConfigurationError
from whet.plugins import ProcessSpec
from whet.registry import ENGINE_LORA_MODULES, ENGINE_RANKS
from whet.settings import Settings

STOP_S = 30  # running answers may end; the gateway has stopped sending new ones
_ENGINE_STOP_S = 10
# (what the engine's error says, what to do); the first that matches counts.
_REMEDIES = (
    (
        r"max_model_len|max seq len|maximum model length",
        "Set WHET_ENGINE_MAX_MODEL_LEN to what the base model takes.",
    ),
    (
        r"lora.?rank",
        "Set WHET_ENGINE_MAX_LORA_RANK to one of " + ", ".join(map(str, ENGINE_RANKS)) + ".",
    ),
    (
        r"kv.?cache|KVCACHE|cache blocks|memory",
        (
            "End what else takes memory, lower WHET_ENGINE_KV_CACHE_GIB or "
            "WHET_ENGINE_MAX_MODEL_LEN, or use a smaller base."
        ),
    ),
    (r"head.?size|head.?dim", "Use another base, or an engine on a GPU (WHET_ENGINE_URLS)."),
    (
        r"tokenizer|sentencepiece|tiktoken",
        "Put the tokenizer that belongs to these weights into the base model's folder.",
    ),
    (r"template|jinja", "Correct chat_template.jinja in the base model's folder."),
    (
        r"safetensor|header|config\.json|no such file|not found|shard|weights|JSON",
        "Copy or download the base model again, whole; `whet doctor` looks through it.",
    ),
    (
        r"architecture|model type|not supported|transformers",
        (
            "This engine does not know the base's architecture: use another base "
            "(WHET_BASE_MODEL), or an engine that knows it (WHET_ENGINE_URLS)."
        ),
    ),
    (r"dtype|float8|fp8|quantiz", "Save the base model in bfloat16 and use that."),
    (r"unrecognized arguments|invalid choice", "Run `make setup`: another vLLM is installed."),
)


def processes(context: Context) -> list[ProcessSpec]:
    """In the order of their start."""
    found = [gateway_process(context)]
    if not context.settings.retrieval_url:
        found.append(retrieval_process(context))
    return (
        [engine_process(context, base_of(context)), *found]
        if context.settings.starts_engine
        else found
    )


def gateway_process(context: Context) -> ProcessSpec:
    settings = context.settings
    host = "127.0.0.1" if settings.gateway_host in {"0.0.0.0", "::"} else settings.gateway_host
    return ProcessSpec(
        name="gateway",
        argv=[sys.executable, "-m", "serving.gateway"],
        environment={"WHET_HOME": str(settings.home)},
        ready_url=f"http://{host}:{settings.gateway_port}/healthz",
        ready_within_s=60,
        listens_on=((settings.gateway_host, settings.gateway_port),),
        order=20,
    )


def retrieval_process(context: Context) -> ProcessSpec:
    """Search and embedding on loopback, beside the gateway's event loop and never on it."""
    port = context.settings.retrieval_port
    return ProcessSpec(
        name="retrieval",
        argv=[sys.executable, "-m", "serving.retrieval"],
        environment={"WHET_HOME": str(context.settings.home)},
        ready_url=f"http://127.0.0.1:{port}/healthz",
        ready_within_s=60,
        listens_on=(("127.0.0.1", port),),
        order=15,
    )


def engine_process(context: Context, base: Base, *, port: int | None = None) -> ProcessSpec:
    """vLLM on loopback.

    The same module serves on the CPU and on a GPU; which build is installed decides.
    """
    settings = context.settings
    port = port or settings.engine_port
    return ProcessSpec(
        name="engine",
        argv=[
            sys.executable,
            "-m",
            "vllm.entrypoints.openai.api_server",
            *_arguments(context, base, port),
        ],
        environment=_environment(context, base),
        ready_url=f"http://127.0.0.1:{port}/health",
        ready_within_s=settings.engine_start_timeout_s,
        stop_within_s=STOP_S,
        listens_on=(("127.0.0.1", port),),
        order=10,
        notice=_length_notice(settings, base),
        remedies=_REMEDIES,
    )


def _arguments(context: Context, base: Base, port: int) -> list[str]:
    settings = context.settings
    arguments = [
        "--model", str(base.folder.absolute()) if base.folder and Path(base.source).is_dir() else base.source,
        "--served-model-name", base.engine_name,
        "--host", "127.0.0.1", "--port", str(port),
        "--max-model-len", str(base.served_length(settings)),
        "--dtype", settings.engine_dtype,
        "--max-logprobs", str(MAX_LOGPROBS),
        *(_for_adapters(settings) if settings.engine_max_loras else ()),
        "--shutdown-timeout", str(_ENGINE_STOP_S),
        "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
        "--disable-uvicorn-access-log",
    ]  # fmt: skip
    template = base.folder / "chat_template.jinja" if base.folder else None
    return (
        [*arguments, "--chat-template", str(template.absolute())]
        if template and template.is_file()
        else arguments
    )


def _length_notice(settings: Settings, base: Base) -> str:
    """Say that the base bounds `engine_max_model_len`; "" where it does not."""
    served = base.served_length(settings)
    if served == settings.engine_max_model_len:
        return ""
    return (
        f"serves {served} tokens of prompt and answer together: the base model has no more "
        f"positions (engine_max_model_len is {settings.engine_max_model_len})"
    )


def _for_adapters(settings: Settings) -> list[str]:
    rank = next((rank for rank in ENGINE_RANKS if rank >= settings.engine_max_lora_rank), None)
    if rank is None:
        raise ConfigurationError(
            f"engine_max_lora_rank is {settings.engine_max_lora_rank}; the engine serves ranks up"
            f" to {ENGINE_RANKS[-1]}.",
            hint="Set WHET_ENGINE_MAX_LORA_RANK to one of "
            + ", ".join(map(str, ENGINE_RANKS))
            + ".",
        )
    return [
        "--enable-lora",
        "--max-loras", str(settings.engine_max_loras),
        "--max-cpu-loras", str(max(settings.engine_max_cpu_loras, settings.engine_max_loras)),
        "--max-lora-rank", str(rank),
        "--lora-target-modules", *ENGINE_LORA_MODULES,
    ]  # fmt: skip


def _environment(context: Context, base: Base) -> dict[str, str]:
    settings = context.settings
    environment = {
        "VLLM_API_KEY": engine_key(settings.home, settings.engine_key),
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_CPU_KVCACHE_SPACE": str(settings.engine_kv_cache_gib),
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "60",  # so that the gateway closes idle connections first
        "VLLM_MAX_N_SEQUENCES": "8",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if base.folder is not None:
        # Nothing is fetched that lies here; a path that does not exist must not become a download
        environment["HF_HUB_OFFLINE"] = "1"
    return environment
