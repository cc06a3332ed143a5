"""The setting ``preprocessing``: how a network sees images, where it is to differ."""

from typing import Any

EXPECTED = (
    '"KEY=VALUE ..." with size=128 or 128x96, mean=0.5,0.5,0.5, std=0.5,0.5,0.5, '
    "interpolation=nearest, bilinear or bicubic, channels=rgb or bgr"
)
_WORDS = {
    "interpolation": ("nearest", "bilinear", "bicubic"),
    "channels": ("rgb", "bgr"),
}


def parse_preprocessing(text: str) -> dict[str, Any]:
    """Return what is said, by key.

    Raises
    ------
    ValueError
        Saying what is allowed.
    """
    found: dict[str, Any] = {}
    for part in text.split():
        key, _, value = part.partition("=")
        try:
            found[key] = _value(key, value)
        except ValueError:
            raise ValueError(f"{part!r} is not allowed: expected {EXPECTED}") from None
    return found


def _value(key: str, value: str) -> Any:
    if key in _WORDS and value in _WORDS[key]:
        return value
    if key == "size":
        sides = [int(side) for side in value.split("x")]
        if len(sides) <= 2 and all(8 <= side <= 4096 for side in sides):
            return (sides[0], sides[-1])
    if key in ("mean", "std"):
        numbers = tuple(float(each) for each in value.split(","))
        if len(numbers) == 1:
            numbers *= 3
        finite = all(abs(each) < 1e6 for each in numbers)
        if len(numbers) == 3 and finite and (key == "mean" or min(numbers) > 0):
            return numbers
    raise ValueError
