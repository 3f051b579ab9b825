"""Which language a short text is in, without a model: the script decides first, then common words.

A heuristic for noticing that the mix of languages moves, not for labelling single texts: very short
texts come out as `unknown`, and neighbours such as Danish and Norwegian are one class.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

_WORD = re.compile(r"[^\W\d_]+")
_LOOK_AT = 400  # characters; more changes nothing

_SCRIPTS = (
    ("ja", 0x3040, 0x30FF),  # kana before han: Japanese uses both
    ("ko", 0xAC00, 0xD7AF),
    ("zh", 0x4E00, 0x9FFF),
    ("ru", 0x0400, 0x04FF),  # every Cyrillic language
    ("ar", 0x0600, 0x06FF),
    ("he", 0x0590, 0x05FF),
    ("hi", 0x0900, 0x097F),
    ("th", 0x0E00, 0x0E7F),
    ("el", 0x0370, 0x03FF),
)

_COMMON = {
    "en": (
        "the and is are my it for of to in on with how do does can what you this have has not was"
        " when if but please i your will be or an from"
    ),
    "de": (
        "der die das und ist nicht ich mein meine ein eine mit für auf wie kann es zu den dem von"
        " sie wir bitte habe hat was aber noch"
    ),
    "fr": (
        "le la les et est pas je mon ma une un des pour avec que qui dans sur vous nous comment ce"
        " cette il elle ne au du bonjour"
    ),
    "es": (
        "el los las y es no mi una un para con que en por cómo como puedo de del está tengo se lo"
        " su qué cuándo hola gracias"
    ),
    "it": (
        "il lo gli e è non mio mia una un per con che di del della come posso si ho sono questo"
        " quando anche ciao grazie"
    ),
    "pt": (
        "o os as e é não meu minha uma um para com que de do da como posso em no na se eu está você"
        " quando obrigado"
    ),
    "nl": (
        "de het een en is niet ik mijn voor met op hoe kan van dat die er maar heb heeft wat"
        " wanneer bij aan ook"
    ),
    "pl": "i nie to jest się na w z mój moja jak czy że do mam po co ale dla może kiedy proszę",
    "sv": (
        "och är inte jag min ett en för med på hur kan det att som den har vad när av om men till"
    ),
    "da": (
        "og er ikke jeg min et en for med på hvordan kan det at som den har hvad når af om men til"
    ),
    "tr": "ve bir bu için değil benim ne nasıl mi mı var yok ile çok ama daha olarak kadar",
}
_LANGUAGES_OF: dict[str, list[str]] = {}
for _language, _words in _COMMON.items():
    for _common in _words.split():
        _LANGUAGES_OF.setdefault(_common, []).append(_language)

LANGUAGES = tuple(dict.fromkeys((*(name for name, *_ in _SCRIPTS), *_COMMON)))  # all codes
_KEPT = 8_192  # openings of answers and questions of two full windows

_CLEAR_LEAD = 1  # common words by which the best language must lead; a tie says nothing


def detect(text: str) -> str:
    """ISO 639-1 code, or `unknown`."""
    return _detected(text[:_LOOK_AT])


@lru_cache(maxsize=_KEPT)
def _detected(opening: str) -> str:
    """Kept, since several signals ask for the language of the same answer."""
    sample = opening.lower()
    script = _by_script(sample)
    if script:
        return script
    votes = Counter(
        language for word in _WORD.findall(sample) for language in _LANGUAGES_OF.get(word, ())
    )
    ranked = votes.most_common(2)
    if not ranked:
        return "unknown"
    lead = ranked[0][1] - (ranked[1][1] if len(ranked) > 1 else 0)
    return ranked[0][0] if lead >= _CLEAR_LEAD else "unknown"


def _by_script(sample: str) -> str | None:
    if sample.isascii():
        return None
    counts: Counter[str] = Counter()
    letters = 0
    for character in sample:
        code = ord(character)
        if code < 0x0370:
            letters += character.isalpha()
            continue
        for name, first, last in _SCRIPTS:
            if first <= code <= last:
                counts[name] += 1
                break
    if not counts:
        return None
    if counts["ja"] and counts["zh"]:
        counts["ja"] += counts.pop("zh")
    name, found = counts.most_common(1)[0]
    return name if found * 2 > letters else None  # half: these scripts say more per character
