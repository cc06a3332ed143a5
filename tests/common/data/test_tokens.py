"""Text to token ids: cuts worked out by hand, and properties for any text."""

import subprocess
import sys
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import PADDING, HashedPieces
from common.data.tokens import EMPTY, FIRST, pieces


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Great product!", ["great", "product", "!"]),
        ("I don't.", ["i", "don", "'", "t", "."]),
        ("  two\n lines\t", ["two", "lines"]),
        # 8 letters stay whole; 13 become 4 + 4 + 4 + 1.
        ("headsets", ["headsets"]),
        ("disappointing", ["disa", "##ppoi", "##ntin", "##g"]),
        (":-)", [":", "-", ")"]),
        ("", []),
        # One sign however it was typed: a letter with its accent, or full width.
        ("CAFE\u0301", ["caf\u00e9"]),
        ("\uff21\uff22", ["ab"]),
    ],
)
def test_pieces(text: str, expected: list[str]) -> None:
    assert list(pieces(text)) == expected


def test_ids_are_hashes_behind_the_reserved_ones() -> None:
    digest = int.from_bytes(blake2b(b"great", digest_size=8).digest(), "little")
    [[first, second, third]] = HashedPieces(length=3, vocabulary=100).encode(["Great"])
    assert (first, second, third) == (2 + digest % 98, PADDING, PADDING)


def test_long_texts_are_cut_off_and_empty_ones_are_not_all_padding() -> None:
    x = HashedPieces(length=2, vocabulary=300).encode(["a b c", "a b", "a", "", " "])
    assert x.dtype == np.uint16
    assert x[0].tolist() == x[1].tolist()
    assert x[2].tolist() == [x[0, 0], PADDING]
    assert x[3].tolist() == x[4].tolist() == [EMPTY, PADDING]


def test_half_a_surrogate_pair_is_a_sign_like_others() -> None:
    assert HashedPieces().encode(["\ud83d"])[0, 0] >= FIRST


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(st.text(max_size=80), min_size=1, max_size=4),
    length=st.integers(1, 20),
    vocabulary=st.integers(3, 5000),
)
def test_any_text(texts: list[str], length: int, vocabulary: int) -> None:
    tokeniser = HashedPieces(length=length, vocabulary=vocabulary)
    x = tokeniser.encode(texts)
    assert x.shape == (len(texts), length)
    assert x.max() < vocabulary
    # Padding only at the end, and never alone.
    assert (x[:, 0] != PADDING).all()
    assert not ((x[:, :-1] == PADDING) & (x[:, 1:] != PADDING)).any()
    again = HashedPieces(length=length, vocabulary=vocabulary)
    assert np.array_equal(x, again.encode(texts))
    for row, text in zip(x, texts, strict=True):
        assert np.array_equal(row, tokeniser.encode([text])[0])


def test_every_process_comes_to_the_same_ids() -> None:
    code = (
        "from common.data.tokens import HashedPieces;"
        "print(HashedPieces(length=6).encode(['What a wonderfully good day'])[0])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
