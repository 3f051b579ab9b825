"""Zenith's policy as documents: a Markdown page for each product, for retrieval."""

from __future__ import annotations

from pathlib import Path

from examples.zenith.world import FAULTS, Product, World

_FAULT_LINES = {
    "charge": "If it does not charge",
    "noise": "If it makes a buzzing noise",
    "heat": "If it gets too hot",
    "connection": "If it loses the connection",
    "crack": "If it has a crack",
    "button": "If a button is stuck",
}


def policy_page(world: World, product: Product) -> str:
    """Return what the policy says about a product: term, channel and the step for each fault."""
    steps = "\n".join(
        f"{_FAULT_LINES[fault]}, please {world.steps[product.line, fault]}." for fault in FAULTS
    )
    return (
        f"# {product.name} {product.kind}\n\nThe {product.name} warranty is"
        f" {product.term_months} months. For more help with the {product.name}, reach us by"
        f" {product.channel}.\n\n{steps}\n"
    )


def write_policy(folder: Path, world: World) -> int:
    """Write a page for each product of `world` into `folder`; return how many."""
    folder.mkdir(parents=True, exist_ok=True)
    for product in world.products:
        path = folder / f"{product.name.lower()}.md"
        path.write_text(policy_page(world, product), encoding="utf-8")
    return len(world.products)
