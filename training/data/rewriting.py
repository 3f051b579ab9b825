"""Questions rewritten by a model behind an endpoint.

Its answers are a stranger's: `augment` checks them, nothing trusts them.
"""

from __future__ import annotations

from training.data.augment import Rewrite
from training.endpoint import Endpoint

TEMPERATURE = 0.9  # wordings should differ
MAX_TOKENS = 400  # of an answer: a question is a few sentences
_PARAPHRASE = (
    "Write the user's message in other words. Keep its meaning, its language, and every name and"
    " number as they are. Answer with the new message alone."
)
_TRANSLATE = (
    "Translate the user's message into {language}. Keep every name and number as they are. Answer"
    " with the translation alone."
)


def rewriters(endpoint: Endpoint, language: str, source: str) -> dict[str, Rewrite]:
    """A function for each method; each raises EndpointError.

    Back-translation goes through `language` and back into `source`.
    """

    def ask(instruction: str, text: str) -> str:
        return endpoint.answer(
            [{"role": "system", "content": instruction}, {"role": "user", "content": text}]
        )

    return {
        "paraphrase": lambda text: ask(_PARAPHRASE, text),
        "back-translate": lambda text: ask(
            _TRANSLATE.format(language=source), ask(_TRANSLATE.format(language=language), text)
        ),
    }
