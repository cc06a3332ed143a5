"""Sizes as people write them."""

import re

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def parse_bytes(text: str) -> int:
    """Read ``"800M"``, ``"1.5GB"`` or a plain number of bytes.

    Raises
    ------
    ValueError
        If it is neither.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)B?", text.strip().upper())
    if match is None:
        raise ValueError(f"{text!r} is no size: expected bytes, or 800M, 1.5G")
    return int(float(match[1]) * _UNITS[match[2]])
