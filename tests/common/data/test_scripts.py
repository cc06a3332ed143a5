"""Texts of many scripts: cuts worked out by hand, and what holds for any text."""

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.data import HashedPieces
from common.data.scripts import UNSPACED
from common.data.tokens import pieces

CHINESE = "难看好电影我喜欢这部非常不"
THAI = ["ดี", "แ", "ย่", "ก", "า", "ร", "เ", "ล่", "น", "ด", "ต", "รี"]
BURMESE = ["မြ", "န်", "မာ", "စ", "ကား"]
UNSEEN = "\u00ad\u034f\u061c\u200e\u200f\u202a\u2060\ufe0e\ufe0f\ufeff\U000e0100"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Vowel signs and viramas are no letters to Python, but parts of their words.
        ("हिन्दी फिल्म अच्छी थी।", ["हिन्दी", "फिल्म", "अच्छी", "थी", "।"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("বাংলা ভাষা", ["বাংলা", "ভাষা"]),
        # Of 9 letters with their signs, the first four and the rest: no sign is cut
        # from its letter, and none is counted.
        ("पुस्तकालयाध्यक्ष", ["पुस्तका", "##लयाध्य", "##क्ष"]),
        # Vowel marks, and points.
        ("كَتَبَ الوَلَدُ", ["كَتَبَ", "الوَلَدُ"]),
        ("שָׁלוֹם עולם", ["שָׁלוֹם", "עולם"]),
        # An accent that no letter is made with; one that NFKC joins.
        ("X\u0302 y", ["x\u0302", "y"]),
        ("nai\u0308ve", ["na\u00efve"]),
        # A joiner stays inside a word, and is nothing at its ends or alone.
        ("می\u200cخواهم", ["می\u200cخواهم"]),  # noqa: RUF001
        ("\u200dක්\u200dර\u200d \u200d", ["ක්\u200dර"]),
        # The capital that Turkish words are written with, and their small letter.
        ("\u0130STANBUL istanbul", ["istanbul", "istanbul"]),
        # Without spaces: letters with their marks, and pairs of neighbours.
        ("好看。", ["好", "好看", "看", "。"]),
        ("カメラ", ["カ", "カメ", "メ", "メラ", "ラ"]),
        ("ｶﾞ", ["ガ"]),
        ("ดีมาก", ["ดี", "ดีม", "ม", "มา", "า", "าก", "ก"]),
        ("ລາວ", ["ລ", "ລາ", "າ", "າວ", "ວ"]),
        ("ខ្មែរ", ["ខ្", "ខ្មែ", "មែ", "មែរ", "រ"]),
        ("မြန်မာ", ["မြ", "မြန်", "န်", "န်မာ", "မာ"]),
        ("ᦅᦱ", ["ᦅ", "ᦅᦱ", "ᦱ"]),
        ("ꦗꦮ", ["ꦗ", "ꦗꦮ", "ꦮ"]),
        # Other words end where such a run begins; Korean and Tibetan are no such runs.
        ("iPhone手機3月", ["iphone", "手", "手機", "機", "3", "月"]),
        ("한국어 영화", ["한국어", "영화"]),
        ("བོད་སྐད", ["བོད", "་", "སྐད"]),
        # A space without width is one.
        ("ខ្ញុំ\u200bទៅ", ["ខ្", "ខ្ញុំ", "ញុំ", "ទៅ"]),
        ("disap\u00adpeared", ["disa", "##ppea", "##red"]),
        # One picture is one sign, whatever it is joined of and however it looks.
        ("👨\u200d👩\u200d👧 👩🏽\u200d🚀", ["👨\u200d👩\u200d👧", "👩\u200d🚀"]),
        ("👍👍🏽", ["👍", "👍"]),
        ("❤\ufe0f❤", ["❤", "❤"]),
        ("🇫🇷🇩🇪", ["🇫🇷", "🇩🇪"]),
        ("1\ufe0f\u20e3", ["1\u20e3"]),
        ("🏽🇩", ["🏽", "🇩"]),
        ("🏴\U000e0067\U000e007f!", ["🏴\U000e0067\U000e007f", "!"]),
        # A mark on nothing.
        ("\u0301", ["\u0301"]),
    ],
)
def test_pieces_of_scripts(text: str, expected: list[str]) -> None:
    assert list(pieces(text)) == expected


def old_pieces(text: str) -> list[str]:
    """Cut a text as it was before scripts were told apart, by letters alone."""
    words = re.findall(r"\w+|[^\w\s]", unicodedata.normalize("NFKC", text).lower())
    cut = []
    for word in words:
        step = len(word) if len(word) <= 8 else 4
        cut += [
            ("##" if start else "") + word[start : start + step]
            for start in range(0, len(word), step)
        ]
    return cut


def is_plain(text: str) -> bool:
    """Return whether a text has only what was always cut well."""
    read = unicodedata.normalize("NFKC", text).lower()
    return not any(
        unicodedata.category(sign) in ("Mn", "Mc", "Me", "Cf")
        or any(low <= ord(sign) <= high for low, high in UNSPACED)
        or 0x1F1E6 <= ord(sign) <= 0x1F1FF
        or 0x1F3FB <= ord(sign) <= 0x1F3FF
        for sign in read
    )


LATIN = st.text(st.characters(max_codepoint=0x24F), max_size=60)


@given(st.text(max_size=60).filter(is_plain) | LATIN.filter(is_plain))
def test_plain_texts_are_cut_as_before(text: str) -> None:
    assert list(pieces(text)) == old_pieces(text)


@given(
    before=st.lists(st.sampled_from(CHINESE), max_size=10),
    after=st.lists(st.sampled_from(CHINESE), max_size=10),
    word=st.lists(st.sampled_from(CHINESE), min_size=1, max_size=4),
    letters=st.sampled_from([list(CHINESE), THAI, BURMESE]),
)
def test_a_word_has_the_same_pieces_wherever_it_stands(
    before: list[str], after: list[str], word: list[str], letters: list[str]
) -> None:
    start, middle, end = (
        "".join(letters[CHINESE.index(sign) % len(letters)] for sign in part)
        for part in (before, word, after)
    )
    alone, inside = list(pieces(middle)), list(pieces(start + middle + end))
    assert "\n".join(alone) in "\n".join(inside)


@given(st.lists(st.sampled_from([*THAI, "好", "看", "word", " ", "!"]), max_size=40))
def test_letters_give_way_where_there_is_no_room(parts: list[str]) -> None:
    text = "".join(parts)
    everything = list(pieces(text))
    # A letter that a pair beside it has as well; words are in no pairs.
    spare = [
        not piece.isascii()
        and any(piece in p and piece != p for p in everything[max(0, k - 1) : k + 2])
        for k, piece in enumerate(everything)
    ]
    vocabulary = 2**20
    all_ids = HashedPieces(length=200, vocabulary=vocabulary).encode([text])[0]
    needed = len(everything) - sum(spare)
    for length in range(max(1, needed), max(2, len(everything) + 1)):
        short = HashedPieces(length=length, vocabulary=vocabulary).encode([text])[0]
        kept, left = [], length - needed
        for token, extra in zip(all_ids, spare, strict=False):
            left -= extra
            if not extra or left >= 0:
                kept.append(token)
        if everything:
            assert short[: len(kept)].tolist() == kept
            assert not short[len(kept) :].any()


@given(
    text=st.text(max_size=40),
    at=st.integers(0, 40),
    unseen=st.sampled_from(UNSEEN),
)
def test_what_cannot_be_seen_changes_nothing(text: str, at: int, unseen: str) -> None:
    changed = text[:at] + unseen + text[at:]
    assert list(pieces(changed)) == list(pieces(text))


@given(st.text(max_size=60))
@example("0\u0e31")  # a Thai vowel sign behind a digit
def test_no_mark_stands_alone_behind_a_letter(text: str) -> None:
    read = unicodedata.normalize("NFKC", text).lower()
    cut = list(pieces(text))
    starts = [p for p in cut if unicodedata.category(p.removeprefix("##")[0])[0] == "M"]
    # Only where a text, or a word behind a space, begins with one.
    lone = [k for k, sign in enumerate(read) if unicodedata.category(sign)[0] == "M"]
    assert len(starts) <= sum(1 for k in lone if k == 0 or not read[k - 1].isalnum())
