"""Why many clients did not take part or were not merged, in a few lines.

A cause they share is told once; who else it met is a number. Everything is in
``run.json`` and ``metrics.jsonl``.
"""

from collections.abc import Mapping, Sequence

from common.text import one_line

MOST_REASONS = 5
MOST_NAMES = 4


def grouped(reasons: Mapping[str, str]) -> list[str]:
    """Return a line per reason, the most frequent first.

    Parameters
    ----------
    reasons : mapping of str to str
        By client.

    Returns
    -------
    list of str
        ``"a, b, c, d and 996 others: REASON"``; the last line may say how many more
        reasons there are. Bounded, whatever clients sent.
    """
    clients: dict[str, list[str]] = {}
    for client, reason in reasons.items():
        clients.setdefault(reason, []).append(client)
    by_size = sorted(clients.items(), key=lambda item: -len(item[1]))
    lines = [
        f"{named(names)}: {one_line(reason)}"
        for reason, names in by_size[:MOST_REASONS]
    ]
    if rest := by_size[MOST_REASONS:]:
        met = sum(len(names) for _, names in rest)
        lines.append(f"{met} others: {len(rest)} other reasons")
    return lines


def named(names: Sequence[str]) -> str:
    """Return names as a text of bounded length: ``"a, b, c, d and 996 others"``."""
    shown = ", ".join(one_line(name) for name in names[:MOST_NAMES])
    more = len(names) - MOST_NAMES
    if more <= 0:
        return shown
    return f"{shown} and {more} other{'s' if more > 1 else ''}"
