"""The notation of ``augment``: names with arguments, read and never run.

What the names stand for is found where they are used (``common.augment``): the settings
need no torch.
"""

import ast
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class NamedTransform:
    """One transform as written: its name and its arguments, which are literals."""

    name: str
    given: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...]


def parse_augment(text: str) -> tuple[NamedTransform, ...]:
    """Read ``RandomHorizontalFlip,RandomCrop(padding=4)``; "" names none.

    Raises
    ------
    ValueError
        If it is anything but names, with arguments that are literals.
    """
    if not text.strip():
        return ()
    try:
        tree = ast.parse(f"[{text.strip()}]", mode="eval").body
        return tuple(map(_transform, tree.elts))  # type: ignore[attr-defined]
    except (AttributeError, SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(
            "expected names of torchvision.transforms.v2 separated by commas, each "
            "with its arguments if it has any, as in "
            '"RandomHorizontalFlip,RandomCrop(padding=4)"'
        ) from None


def _transform(node: ast.expr) -> NamedTransform:
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    if not isinstance(call.func, ast.Name) or any(k.arg is None for k in call.keywords):
        raise ValueError(ast.dump(node))
    return NamedTransform(
        name=call.func.id,
        given=tuple(map(ast.literal_eval, call.args)),
        keywords=tuple((str(k.arg), ast.literal_eval(k.value)) for k in call.keywords),
    )
