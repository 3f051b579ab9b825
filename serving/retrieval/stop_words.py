"""Words of questions that say nothing about what is asked for, by language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOP_WORDS: Mapping[str, frozenset[str]] = {
    "en": _words(
        """a about after again all also am an and any anything are as at be because been before
        being but by can cannot could did do does doing done each else few for from further get
        gets give go had has have having he her here him his how i if in into is it its just let
        like make makes many may me more most much must my no nor not of off on once one only or
        other our out over own same say says see she should so some someone something such than
        that the their them then there these they thing things this those through to too under
        until up us use very want was way we were what when where which while who whom whose why
        will with without would you your yes"""
    ),
    "de": _words(
        """aber alle als also am an auch auf aus bei bin bis bitte da damit dann das dass dein dem
        den der des die dies diese dieser doch du durch ein eine einem einen einer eines er es
        etwas für gibt habe haben hat hier ich ihr im in ist ja kann kein keine kann können man
        mein mit muss nach nicht noch nur ob oder ohne sein sich sie sind so über um und uns von
        vor war was weil wenn wer wie wieder wird wo wir zu zum zur"""
    ),
    "fr": _words(
        """à au aux avec ce ces cette comme comment dans de des du elle en est et être fait faire
        il ils je la le les leur lui ma mais mes mon ne nous on ou où par pas peut pour puis
        quand que quel quelle qui sa sans se ses si son sont sur te un une vous y"""
    ),
    "es": _words(
        """a al como cómo con cual cuál cuando de del donde el ella en entre es esta este esto
        está hay la las lo los más me mi muy no nos o para pero por porque puede puedo que qué se
        ser si sin sobre son su sus también te tiene un una y ya yo"""
    ),
}


def without_stop_words(text: str, languages: Sequence[str]) -> str:
    """Leave out the stop words of these languages; a text of nothing else stays."""
    stops = frozenset().union(*(STOP_WORDS.get(language, frozenset()) for language in languages))
    kept = [word for word in text.replace("'s", "").split() if _bare(word) not in stops]
    return " ".join(kept) or text


def _bare(word: str) -> str:
    return word.lower().strip("?!.,;:\"'()¿¡")
