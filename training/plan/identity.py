"""What a checkpoint belongs to: recipe, base and rows, each as a digest."""

from __future__ import annotations

from training.models.encoded import Encoded
from training.plan.prepare import Prepared
from training.recipes.methods import ANSWERS, METHODS
from whet.store import digest_json


def identity_of(prepared: Prepared) -> dict[str, str]:
    """What a checkpoint belongs to, by name, each as a digest: going on with anything else would
    mix two runs.
    """

    def rows(some: list[Encoded]) -> str:
        return digest_json([[row.ids, row.trained, row.weight] for row in some])

    found = {
        "recipe": digest_json(prepared.recipe.as_json()),
        "base": prepared.base.digest,
        "chat template": prepared.base.template_digest,
        "training rows": rows(prepared.train),
        "validation rows": rows(prepared.validation),
        **(
            {"question variants": rows([row for some in prepared.variants for row in some])}
            if prepared.variants
            else {}
        ),
    }
    # The tokens above are of chosen answers alone
    if METHODS[prepared.recipe.method].rows != ANSWERS:
        found["dataset"] = prepared.dataset.digest
    return found
