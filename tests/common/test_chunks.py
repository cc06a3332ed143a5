"""How messages are cut: sizes worked out by hand, and who has the last word."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.chunks import LARGEST, VARIABLE, chosen_size, chunk_size

KIB = 1024
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("kbit_per_second", "kib"),
    [
        # 5 s of the line in bytes, and the power of two below.
        (0, 5120),  # nobody knows: as Flower does
        (16, 32),  # 10 000: the least there is
        (64, 32),  # 40 000
        (128, 64),  # 80 000
        (256, 128),  # 160 000
        (1_000, 512),  # 625 000
        (2_000, 1024),  # 1 250 000
        (8_000, 4096),  # 5 000 000
        (8_388, 4096),  # 5 242 500, and 5 MiB are 5 242 880
        (8_389, 5120),  # 5 243 125
        (100_000, 5120),
    ],
)
def test_the_rule(kbit_per_second: int, kib: int) -> None:
    assert chunk_size(kbit_per_second * 1000 / 8) == kib * KIB


@given(st.floats(min_value=6_600.0, max_value=1_048_000.0))
def test_two_pieces_have_their_time_on_a_link_three_times_as_slow(speed: float) -> None:
    assert 2 * chunk_size(speed) / (speed / 3) <= 30


@given(st.floats(min_value=0.2, max_value=1e9), st.floats(min_value=1, max_value=100))
def test_a_quicker_link_has_no_smaller_pieces(speed: float, times: float) -> None:
    assert chunk_size(speed) <= chunk_size(speed * times) <= LARGEST


@pytest.mark.parametrize("word", ["", "0", "5 MiB", "-1", "1e6"])
def test_a_word_that_is_no_size_is_named(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, word)
    with pytest.raises(ValueError, match=rf"^{VARIABLE} = '{word}' is not allowed: "):
        chosen_size(1_000.0)


CODE = """
import sys
import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from common.chunks import cut_for, in_words

print(in_words(cut_for(float(sys.argv[1]))))
array = Array(np.zeros(150_000, dtype=np.float32))  # 600 000 bytes and a header
print(len(array.slice_array()))
print("common.flower_internals" in sys.modules)
"""


@pytest.mark.parametrize(
    ("speed", "environment", "said"),
    [
        (32_000, {}, ["pieces of 128 KiB", "5", "True"]),
        (0, {}, ["pieces of 5120 KiB", "1", "False"]),
        (
            32_000,
            {VARIABLE: "102400"},
            [f"pieces of 100 KiB ({VARIABLE})", "6", "False"],
        ),
    ],
)
def test_flower_cuts_as_it_is_told(
    speed: int, environment: dict[str, str], said: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(speed)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == said, done.stderr
