"""Which keyword arguments of a chat template clients may set, as an operator names them."""

from __future__ import annotations

# What a template is given by the engine itself: a client that set one of these would rewrite its
# prompt, or run a template of its own.
RESERVED = frozenset(
    {
        "add_generation_prompt", "chat_template", "continue_final_message", "conversation",
        "documents", "messages", "return_dict", "return_tensors", "tokenize", "tools",
    }
)  # fmt: skip


def parse_template_kwargs(text: str) -> frozenset[str]:
    """Return the comma-separated names in `text`. Raises ValueError for a name that is none, or
    that the engine sets itself."""
    names = frozenset(part.strip() for part in text.split(",") if part.strip())
    for name in sorted(names):
        if not name.isidentifier():
            raise ValueError(f"{name[:80]!r} is no name of a template's keyword argument")
        if name in RESERVED:
            raise ValueError(f"{name!r} is set by the engine and cannot be left to clients")
    return names
