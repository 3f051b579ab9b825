"""Whether an answer refuses: a rule of phrases in seven languages, offline and without a model.

A refusal is an answer that declines, in its own voice and at its beginning, what was asked, or a
part of it: for policy, for want of ability or of information. "You cannot return it after 14 days"
is an answer, and so is "I cannot recommend it enough". What stands between quotation marks is not
said by the model.

How well it does, on sentences written for it: `python -m benchmarks.drift --parts refusals`.
"""

from __future__ import annotations

import re

from monitoring.signals.language import LANGUAGES, detect

# Raise it when a phrase changes: rates before and after are then not comparable.
REFUSAL_VERSION = 2
_OPENING = 400  # characters: a refusal stands at the start; later the same words are an explanation
_APOSTROPHES = str.maketrans({"’": "'", "ʼ": "'", "‘": "'", "`": "'", "\n": " "})
_QUOTED = re.compile(r'"[^"]*"|“[^”]*”|„[^“”]*[“”]|«[^»]*»')

# Each language: parts of words of which one is in every phrase below (a cheap test, since most
# answers have none), and the phrases. Gaps are bounded: matching is linear in the text's length.
_GAP = r"(?:[\w'-]+,? ){0,6}?"  # up to six words
# What people say with "cannot" and refuse nothing: idioms, and finding no fault.
_EN_IDIOM = (
    r"(?! (?:wait|believe|stress|emphasi[sz]e|overstate|imagine|thank|agree more|help but|resist|"
    r"(?:\w+ ){0,3}(?:enough|errors?|problems?|faults?|difference|mistakes?)\b|reproduce|charge))"
)
_EN_UNABLE = (
    r"(?:can't|cannot|can not|(?:am|'m) (?:simply |just )?(?:unable to|not (?:able|allowed|"
    r"permitted|authori[sz]ed|in a position) to|not (?:comfortable|going to|willing to))|won't|"
    r"will not)"
)
_DE_IDIOM = (
    r"(?! (?:genug|erwarten|glauben|anders|leugnen|klagen)\b)"
    r"(?! (?:\w+ )?(?:unterschied|fehler)\b)"
)
_PHRASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "en": (
        ("n't", "not", "unable", "declin", "refuse", "outside", "beyond", "rather", "pass on"),
        (
            rf"\bi ?(?:really |simply |just |also )?{_EN_UNABLE}{_EN_IDIOM} \w",
            rf"\bi'm (?:[\w-]+ ){{1,6}}and {_EN_UNABLE}{_EN_IDIOM} \w",
            r"\bi cannot and will not\b",
            r"\bi (?:must|have to|need to|will) (?:respectfully )?(?:decline|refuse|pass on)\b",
            r"\bi (?:decline|refuse) to\b",
            r"\bi (?:don't|do not) (?:currently )?have (?:\w+ ){0,3}?"
            r"(?:information|access|data|details|opinions?|feelings)\b",
            r"\bi (?:don't|do not) (?:feel comfortable|know (?!about you|why you))",
            r"\bi(?:'d| would) rather not\b",
            r"\b(?:not|isn't) something (?:that )?i(?:'m| can| am| will)",
            r"\b(?:outside|beyond) (?:of )?(?:what|my|the scope of what) "
            r"(?:i can|scope|abilities)\b",
            r"\bmy (?:guidelines|policies|instructions|programming) "
            r"(?:do not|don't|prevent|prohibit)\b",
            r"\b(?:not|wouldn't) be appropriate for me to\b",
        ),
    ),
    "de": (
        ("nicht", "kein", "ablehn"),
        (
            rf"\bich (?:kann|darf|werde|möchte|könnte) {_GAP}(?:nichts?|keine?n?){_DE_IDIOM} \w",
            r"\b(?:kann|darf|möchte|werde) ich (?:[\w-]+ ){0,6}?"
            rf"(?:nichts?|keine?n?){_DE_IDIOM}(?:[ .!,]|$)",
            rf"\bich {_GAP}nicht (?:\w+ ){{0,2}}(?:kann|darf|möchte|werde)\b",
            r"\b(?:helfe|schreibe|mache|beantworte|erstelle|tue|sage) ich (?:\w+ ){0,3}nicht\b",
            r"\bich bin (?:leider )?nicht (?:in der lage|befugt|berechtigt|autorisiert)\b",
            r"\b(?:mir|für mich) (?:ist es )?(?:\w+ ){0,2}?nicht (?:möglich|gestattet|erlaubt)\b",
            r"\bmir (?:ist es )?unmöglich\b",
            r"\b(?:habe ich|ich habe|liegen mir|mir liegen) (?:\w+ ){0,3}?kein(?:e|en)? "
            r"(?:\w+ ){0,2}?(?:informationen|zugriff|zugang|angaben|daten|meinung)\b",
            r"\bich (?:verfüge|helfe) (?:\w+ ){0,3}nicht\b",
            r"\bich (?:muss|möchte) (?:\w+ ){0,4}?ablehnen\b",
        ),
    ),
    "fr": (
        ("pas", "impossible", "refuser", "saurais", "préfère", "m'abstenir", "décliner"),
        (
            r"\bje ne (?:peux|puis|vais|pourrai) (?:malheureusement |donc |hélas )?pas "
            r"(?!(?:vous |te )?(?:dire à quel point|m'empêcher|attendre|croire|assez|imaginer))\w",
            r"\bje ne suis (?:malheureusement |donc |hélas )?pas "
            r"(?:en mesure|autorisée?|capable|habilitée?|en capacité)\b",
            r"\bje n'ai pas (?:accès|(?:d'|l'|cette )?informations?|(?:de |les )données|"
            r"d'(?:avis|opinion))",
            r"\bje ne dispose pas\b",
            r"\bil m'est impossible\b",
            r"\bil ne m'est pas (?:possible|permis)\b",
            r"\bje ne (?:saurais|souhaite pas|veux pas)\b",
            r"\bje (?:dois|me vois) (?:[\w']+ ){0,2}?(?:refuser|décliner|m'abstenir)\b",
            r"\bpas partie de ce que je (?:peux|sais)\b",
            r"\bje préfère ne pas\b",
        ),
    ),
    "es": (
        ("no ", "rechaz", "fuera de lo que", "imposible"),
        (
            r"\bno (?:puedo|podré|voy a) (?!(?:creer|esperar|dejar de|evitar|menos|estar más|"
            r"imaginar|(?:\w+ ){1,3}(?:suficiente|bastante))\b)\w",
            r"\bno poder (?:ayudar|responder|atender)",
            r"\b(?:no me es posible|me es imposible|me resulta imposible)\b",
            r"\bno se me permite\b",
            r"\bno (?:estoy|soy) (?:autorizad[oa]|en condiciones|capaz|capacitad[oa]|"
            r"programad[oa])\b",
            r"\bno (?:tengo|dispongo de) (?:\w+ ){0,2}?(?:acceso|información|datos|"
            r"opinion(?:es)?)\b",
            r"\bno me siento cómod[oa]\b",
            r"\bdebo (?:rechazar|declinar)\b",
            r"\bfuera de lo que puedo\b",
            r"\bprefiero no\b",
        ),
    ),
    "it": (
        ("non ", "rifiut", "oltre quello", "impossibile"),
        (
            r"\bnon (?:posso|potrò) (?!(?:che|credere|crederci|fare a meno|aspettare|immaginare|"
            r"(?:\w+ ){0,2}abbastanza)\b)\w",
            r"\bdi non poter\w* \w",
            r"\bnon sono (?:in grado|autorizzat[oa]|capace|abilitat[oa])\b",
            r"\b(?:non mi è (?:possibile|permesso|consentito)|mi è impossibile)\b",
            r"\bnon (?:ho|dispongo di) (?:\w+ ){0,2}?(?:accesso|informazioni|dati|opinioni)\b",
            r"\bdevo (?:rifiutare|declinare)\b",
            r"\boltre (?:quello|ciò) che posso\b",
            r"\bpreferisco non\b",
        ),
    ),
    "pt": (
        ("não ", "recusar", "além do que", "impossível"),
        (
            r"\bnão (?:posso|consigo|poderei|vou|possa) (?!(?:deixar de|acreditar|esperar|evitar|"
            r"concordar mais|imaginar|(?:\w+ ){1,3}(?:suficiente|bastante))\b)\w",
            r"\bnão (?:estou|sou) (?:autorizad[oa]|em condições|habilitad[oa]|capaz)\b",
            r"\b(?:não me é (?:possível|permitido)|(?:é-me|me é) impossível)\b",
            r"\bnão (?:tenho|disponho) (?:\w+ ){0,2}?(?:acesso|informaç|dados|opiniões)",
            r"\bnão disponho dess[ae]",
            r"\b(?:tenho de|tenho que|devo) (?:recusar|declinar)\b",
            r"\balém do que (?:eu )?posso\b",
            r"\bprefiro não\b",
        ),
    ),
    "nl": (
        ("niet", "geen", "weiger"),
        (
            rf"\bik (?:kan|mag|ga|wil|zal) {_GAP}(?:niets?|geen)"
            r"(?! (?:genoeg|wachten|geloven|anders|\w*fouten|verschil)\b) \w",
            rf"\b(?:kan|mag|wil) ik {_GAP}(?:niets?|geen)(?:[ .!,]|$)",
            r"\b(?:schrijf|doe|maak|beantwoord|help) ik (?:\w+ ){0,3}niet\b",
            r"\bik ben (?:helaas )?niet (?:in staat|bevoegd|gemachtigd)\b",
            r"\b(?:heb ik|ik heb) (?:\w+ ){0,3}?geen (?:\w+ )?"
            r"(?:toegang|informatie|gegevens|mening)\b",
            r"\b(?:beschik ik|ik beschik) (?:\w+ ){0,2}?niet\b",
            r"\bhet is mij niet (?:toegestaan|mogelijk)\b",
            r"\bik moet (?:\w+ ){0,3}?(?:weigeren|afwijzen)\b",
        ),
    ),
}  # fmt: skip
WATCHED_LANGUAGES = frozenset(_PHRASES)
_OTHERS = frozenset(LANGUAGES) - WATCHED_LANGUAGES
_RULES = tuple((stems, re.compile("|".join(phrases))) for stems, phrases in _PHRASES.values())


def refuses(text: str) -> bool:
    """Whether an answer opens with a refusal in one of `WATCHED_LANGUAGES`."""
    opening = text[:_OPENING].lower().translate(_APOSTROPHES)
    unquoted = ""
    for stems, phrases in _RULES:
        if any(stem in opening for stem in stems):
            unquoted = unquoted or _QUOTED.sub('""', opening)
            if phrases.search(unquoted):
                return True
    return False


def refusal_of(text: str) -> bool | None:
    """Whether an answer refuses; None where it is in a language that the rule does not know."""
    return True if refuses(text) else None if detect(text) in _OTHERS else False
