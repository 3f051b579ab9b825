"""Synonyms from WordNet, where its data is on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from nltk.corpus import wordnet

from training.data.augment import question_text
from training.data.rows import Row
from training.data.similar import words


def wordnet_synonyms(rows: Sequence[Row]) -> dict[str, list[str]] | None:
    """Synonyms of the questions' words from WordNet, where its data is on this machine (nltk); None
    where it is not. Nothing is downloaded.
    """
    found: dict[str, list[str]] = {}
    try:
        for word in sorted(
            {word for row in rows for word in words(question_text(row)) if word.isalpha()}
        ):
            names = {
                lemma.name().replace("_", " ").lower()
                for meaning in wordnet.synsets(word)
                for lemma in meaning.lemmas()
            } - {word}
            if names:
                found[word] = sorted(names)
    except LookupError:
        return None
    return found
