"""What a fault is, for the two modules that make them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A fault: how a policy names it, and how customers say it (clauses after ``it`` or after the
    item).
    """

    name: str
    sayings: tuple[str, ...]
