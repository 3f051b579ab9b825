"""Bytes of a file as text: UTF-8, UTF-16 and UTF-32, and code pages where only one can be meant.

A code page has no mark. A candidate is taken when it decodes every byte, its words look like
words, and its language is one that is written in it; all candidates that pass must give the same
text. Otherwise the file is refused with the command that converts it: a wrong guess is learned.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from training.data.languages import UNKNOWN, detect
from whet.errors import InputError

_UTF32 = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_LOOK_AT = 1000  # bytes, for zeros: UTF-16 writes one beside each plain letter, and UTF-8 none
_SAMPLE = 1 << 20  # bytes of lines with other characters than ASCII that a guess looks at
_LINES = 200  # of these lines, of which the language is told
_MOST_LINES = 0.8  # share of them in a code page's languages: short lines are told wrongly at times
_FEW = 0.02  # share of words that may look wrong: names and slips
_WESTERN = {
    "en",
    "de",
    "fr",
    "es",
    "it",
    "pt",
    "nl",
    "sv",
    "da",
    "no",
    "nb",
    "nn",
    "fi",
    "is",
    "ca",
}
_CENTRAL = {"pl", "cs", "sk", "hu", "ro", "hr", "sl", "bs", "sq", "de"}
_CYRILLIC = {"ru", "uk", "bg", "sr", "mk", "be"}
# Code page → languages that are written in it. Windows', DOS's and the Macintosh's, as Excel
# writes them, and those of East Asia.
_PAGES: dict[str, set[str]] = {
    "cp1252": _WESTERN,
    "cp1250": _CENTRAL,
    "cp1251": _CYRILLIC,
    "mac_roman": _WESTERN,
    "cp850": _WESTERN,
    "koi8_r": _CYRILLIC,
    "gb18030": {"zh"},
    "big5": {"zh"},
    "cp932": {"ja"},
    "cp949": {"ko"},
}
_ICONV = {"mac_roman": "MACINTOSH", "gb18030": "GB18030", "koi8_r": "KOI8-R"}
# The most frequent characters; a tenth of any text in the language, and hardly any of a wrong
# decoding. Of Japanese, kana take this part.
_FREQUENT = {
    "gb18030": set(
        "的一是不了在人有我他这中大来上个国到说们为子和你地出道也时年得就那要下以生会可请吗多么"
    ),
    "big5": set(
        "的一是不了在人有我他這中大來上個國到說們為子和你地出道也時年得就那要下以生會可請嗎多麼"
    ),
    "cp949": set("이다는을의에가고하지를한은로도어니기있사리자시나수해요까습"),
}
_FREQUENT_SHARE = 0.1
# Beside letters, what texts hold: quotation marks, dashes, units, signs of money, punctuation.
_USUAL = set("“”„‘’‚–—…«»‹›€£¥§°•·©®™½¼¾²³µ×±¿¡\u00a0\u00ad†‰")
_INSIDE = set("’‘–—·…\u00ad-'")  # of these, what may stand between two letters
_ALONE = set("àáâèéêìíòóôùúýäåæøöÀÁÈÉÍÒÓÚÄÅÆØÖ")  # letters beyond ASCII that are words
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A file's text, and the encoding that was guessed; "" where nothing had to be."""

    text: str
    guessed: str = ""


def decode(path: Path, content: bytes, encoding: str = "") -> Decoded:
    """Return the text of a file. Raises InputError when it cannot be known, with what to do."""
    if encoding:
        return Decoded(_as_said(path, content, encoding))
    for mark, name in {**_UTF32, **_UTF16}.items():
        if content.startswith(mark):
            return Decoded(_as_said(path, content, name).removeprefix("\ufeff"))
    if name := _utf16_without_mark(content[:_LOOK_AT]):
        return Decoded(_as_said(path, content, name))
    try:
        return Decoded(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        if guessed := guess(content):
            return Decoded(_as_said(path, content, guessed), guessed)
        raise _unknown(path, content, error) from error


def _as_said(path: Path, content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except LookupError as error:
        raise InputError(
            f"--encoding {encoding!r} is none that Python knows.",
            hint="Write a name such as utf-8, cp1252, gb18030 or shift_jis.",
        ) from error
    except UnicodeError as error:
        at = getattr(error, "start", 0)
        raise InputError(
            f"{path} is not {encoding}: byte 0x{content[at]:02x} at position {at + 1}.",
            hint="Name the encoding that it was saved in with --encoding, or save it as UTF-8.",
        ) from error


def _utf16_without_mark(head: bytes) -> str:
    """Return UTF-16's byte order when every second byte is zero, and hardly any between them."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if max(even, odd) <= len(head) // 8 or min(even, odd) > max(even, odd) // 10:
        return ""
    return "utf-16-be" if even > odd else "utf-16-le"


def is_mostly_utf8(content: bytes) -> bool:
    """Tell whether most lines with other characters than ASCII are UTF-8: the others are faults."""
    lines = _other_lines(content)
    return sum(map(_is_utf8, lines)) * 2 > len(lines)


def _other_lines(content: bytes) -> list[bytes]:
    found, size = [], 0
    for line in content.split(b"\n"):
        if not line.isascii():
            found.append(line)
            size += len(line)
            if size > _SAMPLE:
                break
    return found


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def guess(content: bytes) -> str:
    """Return the only code page that the content can be in; "" where none or several can."""
    if is_mostly_utf8(content):
        return ""
    lines = _other_lines(content)
    texts = {page: text for page in _PAGES if (text := _sound(lines, page)) is not None}
    shares = {page: _share_written_in(page, text) for page, text in texts.items()}
    fitting = [page for page, share in shares.items() if share is None or share >= _MOST_LINES]
    return fitting[0] if len({texts[page] for page in fitting}) == 1 else ""


def _share_written_in(page: str, text: str) -> float | None:
    """Return the share of lines in languages of a code page; None where no language can be told."""
    lines = text.split("\n")
    looked_at = lines[:: max(1, len(lines) // _LINES)]
    spoken = [language for line in looked_at if (language := detect(line)) != UNKNOWN]
    return sum(language in _PAGES[page] for language in spoken) / len(spoken) if spoken else None


def _sound(lines: list[bytes], page: str) -> str | None:
    """Return the lines as text of a code page; None where they do not look like words in it."""
    try:
        text = b"\n".join(lines).decode(page)
    except UnicodeDecodeError:
        return None
    words = [word for word in _WORD.findall(text) if not word.isascii()]
    wrong = sum(map(_looks_wrong, words))
    if wrong > _FEW * len(words) or not _has_frequent(text, page):
        return None
    return text


def _has_frequent(text: str, page: str) -> bool:
    if page not in _FREQUENT and page != "cp932":
        return True
    others = [character for character in text if character > "\u2e7f" and character.isalpha()]
    frequent = _FREQUENT.get(page)
    known = sum(one in frequent if frequent else "\u3040" <= one <= "\u30ff" for one in others)
    return bool(others) and known >= _FREQUENT_SHARE * len(others)


def _looks_wrong(word: str) -> bool:
    """Tell whether a word holds what no language writes so: signs or capitals inside a word,
    letters of two scripts, hardly any plain letter among Latin ones."""
    letters = [one for one in word if one.isalpha()]
    scripts = {_script(one) for one in letters}
    if len(scripts - {"CJK"}) > 1 or any(map(_is_unusual, word)):
        return True
    if scripts == {"LATIN"} and len(letters) == 1 and not letters[0].isascii():
        return letters[0] not in _ALONE
    for before, here, after in zip(word, word[1:], word[2:], strict=False):
        if before.isalpha() and after.isalpha() and here in _USUAL - _INSIDE:
            return True
    for one, following in pairwise(word):
        if one.islower() and following.isupper() and not (one + following).isascii():
            return True
    other = sum(not one.isascii() for one in letters)
    return scripts == {"LATIN"} and len(letters) > 3 and 2 * other > len(letters)


def _script(letter: str) -> str:
    name = unicodedata.name(letter, "").split(" ")[0]
    east = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "KATAKANA-HIRAGANA", "FULLWIDTH", "HALFWIDTH")
    return "CJK" if name in east else name


def _is_unusual(character: str) -> bool:
    if character.isascii() or character in _USUAL or character.isalnum():
        return False
    return not ("\u3000" <= character <= "\u303f" or "\uff00" <= character <= "\uffef")


def _unknown(path: Path, content: bytes, error: UnicodeDecodeError) -> InputError:
    line = content.count(b"\n", 0, error.start) + 1
    lines = _other_lines(content)
    likely = next((page for page in _PAGES if _sound(lines, page) is not None), "cp1252")
    fault = f"byte 0x{content[error.start]:02x} in line {line}"
    if is_mostly_utf8(content):
        return InputError(
            f"{path} is UTF-8 with faults: {fault} is none of it.",
            hint="Correct that line, or write the file again from its source.",
        )
    return InputError(
        f"{path} is not UTF-8: {fault}. Its code page cannot be told for certain.",
        hint=(
            f"Name it, such as --encoding {likely}, or save the file as UTF-8: "
            f"iconv -f {_ICONV.get(likely, likely.upper())} -t UTF-8 {path.name}"
        ),
    )
