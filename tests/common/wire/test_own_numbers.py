"""Numbers of a device's own: what the wire lets pass."""

import math
import string
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common import wire
from common.wire import WireError
from common.wire.records import content_bytes
from tests.common.wire.support import deltas, report

NAMES = st.text(string.ascii_letters + string.digits + "._-", max_size=45) | st.text()


# What a float cannot hold exactly becomes the nearest one.
NUMBERS = st.floats() | st.integers(-(2**62), 2**62)


def allowed(name: str, value: float) -> bool:
    letters = set(string.ascii_letters)
    return (
        1 <= len(name) <= 40
        and name[0] in letters
        and set(name) <= letters | set(string.digits) | set("._-")
        and math.isfinite(value)
    )


@given(st.dictionaries(NAMES, NUMBERS, max_size=18))
@example({"a" * 40: 1.7e308, "b.c-d_9": -0.0})
@example({"a" * 41: 0.0})
@example({f"n{number}": 0.5 for number in range(16)})
@example({f"n{number}": 0.5 for number in range(17)})
@example({"a\n": 0.5})
@example({"a": 2**53 + 1})
def test_numbers_of_a_device_s_own_pass_within_their_bounds_and_not_beyond(
    own: dict[str, float],
) -> None:
    content = wire.encode_report(report(), wire.pack(deltas()))
    record = content.config_records[wire.REPORT]
    for name, value in own.items():
        record[f"metrics.{name}"] = value
    if len(own) <= 16 and all(allowed(*each) for each in own.items()):
        received, _ = wire.decode_report(content)
        nearest = {name: float(value) for name, value in own.items()}
        assert received.metrics == nearest
        again = wire.encode_report(received, wire.pack(deltas()))
        expected = {f"metrics.{name}": value for name, value in nearest.items()}
        assert dict(again.config_records[wire.REPORT]) == {**record, **expected}
        return
    with pytest.raises(WireError, match="metrics") as caught:
        wire.decode_report(content)
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 300


@pytest.mark.parametrize("value", [True, "1", b"1", [1.0]])
@pytest.mark.parametrize("key", ["metrics", "metrics.own"])
def test_a_number_of_a_device_s_own_is_a_number(key: str, value: Any) -> None:
    content = wire.encode_report(report(metrics={"a": 1.0}), wire.pack(deltas()))
    content.config_records[wire.REPORT][key] = value
    with pytest.raises(WireError, match="metrics"):
        wire.decode_report(content)


def test_the_most_that_a_device_may_report_fits_a_reply() -> None:
    own = {f"{n:a>40}": 1.7e308 for n in range(16)}
    fullest = report(metrics=own, warnings=["w" * 200] * 8, code_hash="f" * 64)
    content = wire.encode_report(fullest, {})
    assert content_bytes(content) < wire.SCALAR_BYTES / 2
