"""What one installation decides about the requests that it takes."""

from __future__ import annotations

from dataclasses import dataclass, field

from serving.gateway.schema_limits import SchemaLimits
from whet.context import Context
from whet.control_tokens import ControlTokens, load_control_tokens


@dataclass(frozen=True, slots=True)
class RequestPolicy:
    """Decided once, when the gateway starts."""

    template_kwargs: frozenset[str] = frozenset()  # names that `chat_template_kwargs` may hold
    schema_limits: SchemaLimits = field(default_factory=SchemaLimits)
    control_tokens: ControlTokens = field(default_factory=lambda: ControlTokens(()))


ANY_REQUEST = RequestPolicy()  # the defaults, and a base model without control tokens


def policy_of(context: Context) -> RequestPolicy:
    """Read the settings and the base model's tokenizer. Raises ConfigurationError."""
    settings = context.settings
    return RequestPolicy(
        template_kwargs=settings.template_kwargs,
        schema_limits=SchemaLimits(
            max_bytes=settings.schema_max_bytes,
            max_nodes=settings.schema_max_nodes,
            max_depth=settings.schema_max_depth,
            max_alternatives=settings.schema_max_alternatives,
        ),
        control_tokens=load_control_tokens(context),
    )
