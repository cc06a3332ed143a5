"""Words and signs of a text in any script.

A word is a run of letters, digits and underscores together with the marks that belong
to them: vowel signs, accents, points, and the joiners inside a word. A run of letters
of a script that puts no spaces between words (``UNSPACED``) is kept apart, letter by
letter, for nothing says where its words end. Everything else that can be seen is a
sign: a flag or several emoji joined to one picture are one sign, and variants of its
look are not told apart.

Not here: how words become pieces and ids (``tokens``).
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain, groupby
from typing import NamedTuple

UNSPACED = (
    # Unicode Standard Annex 14, class ID: ideographs and syllables.
    *((0x2E80, 0x312F), (0x3190, 0xA4CF), (0xF900, 0xFAFF)),
    *((0x16FE0, 0x18DFF), (0x1AFF0, 0x1B2FF), (0x20000, 0x3FFFF)),
    # Class SA: Thai and Lao, Burmese, Khmer, Tai Le and New Tai Lue, Tai Tham, Tai
    # Viet, Ahom.
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19FF)),
    *((0x1A20, 0x1AAF), (0xA9E0, 0xA9FF), (0xAA60, 0xAADF), (0x11700, 0x1174F)),
    # Classes AK and AS: Javanese, Balinese.
    *((0xA980, 0xA9DF), (0x1B00, 0x1B7F)),
)
"""First and last code points of scripts without spaces between words."""

JOINERS = "\u200c\u200d"
TONES = "\U0001f3fb-\U0001f3ff"
TAGS = "\U000e0020-\U000e007f"
FLAG = "\U0001f1e6-\U0001f1ff"

_UNSEEN = chain(
    # Soft hyphen, grapheme joiner; marks of direction; word joiner and the like; byte
    # order mark.
    *((0x00AD, 0x034F, 0x061C, 0x180E, 0x200E, 0x200F), range(0x202A, 0x202F)),
    *(range(0x2060, 0x2070), (0xFEFF,)),
    # Variation selectors.
    *(range(0x180B, 0x180E), (0x180F,), range(0xFE00, 0xFE10)),
    range(0xE0100, 0xE01F0),
)
_AS_READ: dict[int, str | None] = {
    **dict.fromkeys(_UNSEEN),
    # A space of no width: where some who write Khmer, Burmese or Thai end a word.
    0x200B: " ",
}


class Run(NamedTuple):
    """What stands together in a text.

    Attributes
    ----------
    letters : sequence of str
        Each with its marks; of a sign, the sign alone.
    spaced : bool
        Whether it is one word, or one sign, as a whole.
    """

    letters: Sequence[str]
    spaced: bool


def runs(text: str) -> Iterator[Run]:
    """Yield the words and signs of a text, in order, after NFKC and in lower case."""
    text = unicodedata.normalize("NFKC", text.translate(_AS_READ)).lower()
    # The lower case of a Turkish capital I with a dot has the dot twice.
    text = text.replace("i\u0307", "i")
    patterns = _patterns()
    for match in patterns.whole.finditer(text):
        word, sign = match["word"], match["sign"]
        if sign:
            yield Run([sign[0] + patterns.tone.sub("", sign[1:])], True)
        elif word.isascii():
            yield Run(word, True)
        else:
            for part in patterns.part.finditer(word):
                letters = patterns.letter.findall(part[0].strip(JOINERS))
                if letters:
                    yield Run(letters, part["unspaced"] is None)


class _Patterns(NamedTuple):
    whole: re.Pattern[str]
    part: re.Pattern[str]
    letter: re.Pattern[str]
    tone: re.Pattern[str]


@lru_cache(maxsize=1)
def _patterns() -> _Patterns:
    """Return the patterns; made when first asked for, as marks have to be looked up."""
    marks = _class_of_marks()
    unspaced = "".join(f"{chr(low)}-{chr(high)}" for low, high in UNSPACED)
    sign = rf"[^\w\s{JOINERS}][{marks}{TONES}{TAGS}]*"
    return _Patterns(
        whole=re.compile(
            rf"(?P<word>[\w{marks}]+(?:[{JOINERS}]+[\w{marks}]+)*)"
            rf"|(?P<sign>[{FLAG}]{{2}}|{sign}(?:\u200d{sign})*)"
        ),
        part=re.compile(
            # A mark belongs to what it stands behind, whatever the script of either.
            rf"(?P<unspaced>(?![{marks}])[{unspaced}][{unspaced}{marks}{JOINERS}]*)"
            rf"|(?:[^{unspaced}]|[{marks}])+"
        ),
        letter=re.compile(rf".[{marks}{JOINERS}]*"),
        tone=re.compile(rf"[{TONES}]"),
    )


def _class_of_marks() -> str:
    """Return Unicode's category M, inside the brackets of a pattern.

    There are none above the second plane but variation selectors, which are not read.
    """
    marks = (c for c in range(0x300, 0x20000) if unicodedata.category(chr(c))[0] == "M")
    spans = []
    # Neighbours are as far from their numbers as from each other.
    for _, group in groupby(enumerate(marks), lambda pair: pair[1] - pair[0]):
        code_points = [code_point for _, code_point in group]
        spans.append(f"{chr(code_points[0])}-{chr(code_points[-1])}")
    return "".join(spans)
