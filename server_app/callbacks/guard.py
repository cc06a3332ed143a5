"""What is optional fails with a warning, and is tried again after the next round.

Report and fitness go through a :class:`Guard`. Checkpoints and ``metrics.jsonl`` do
not: a run that cannot keep them has to stop.
"""

import logging
from collections.abc import Callable
from typing import Any

from common.text import reason

logger = logging.getLogger("flwr.expertfleet")


class Guard:
    """Does one optional thing after another; each may fail, and is tried next time."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def __call__(self, what: str, act: Callable[[], Any]) -> Any:
        """Return what it gives, None if it fails: a warning, once for each reason."""
        try:
            given = act()
        except Exception as error:  # whatever it is, the run is worth more
            text = reason(error)
            if self._said.get(what) != text:
                logger.warning("%s is not up to date: %s", what, text)
            self._said[what] = text
            return None
        if self._said.pop(what, None) is not None:
            logger.info("%s is up to date again", what)
        return given
