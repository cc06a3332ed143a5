"""Sizes as people write them."""

import pytest

from common.settings.sizes import parse_bytes


def test_sizes_as_people_write_them() -> None:
    assert parse_bytes("123") == 123
    assert parse_bytes("800M") == 800_000_000
    assert parse_bytes("1.5 gb") == 1_500_000_000
    for wrong in ("", "M", "-1", "1T", "12 apples"):
        with pytest.raises(ValueError, match="is no size"):
            parse_bytes(wrong)
