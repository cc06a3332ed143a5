"""What the round loop says of a run, to whoever listens (``server_app.callbacks``).

The loop knows no callback, and no callback knows the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from server_app.contract import Algorithm
from server_app.rounds.record import RoundRecord


class Listener(Protocol):
    """Who is told of the run as it goes."""

    stopped: str | None
    """Why no round shall follow; None lets the run go on."""

    def open(
        self, strategy: Algorithm, completed: int, clients: Callable[[], Sequence[str]]
    ) -> None:
        """Begin after ``completed`` rounds; ``clients`` names all that are known."""

    def tell(self, **facts: Any) -> None:
        """Take in facts for ``run.json``."""

    def show(self, record: RoundRecord, strategy: Algorithm) -> None:
        """Show a round that is done."""

    def stop(self, why: str) -> None:
        """Let no round follow, and say why."""
