"""What a callback is: three hooks that look on while a run trains.

The list that calls and guards them is ``server_app.callbacks.callbacks``. What must not
be lost (``metrics.jsonl``, checkpoints, ``run.json``) is no callback: it is written
before any of them is called, and fails loudly (``server_app.run_folder``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from common.settings import Settings
from server_app.contract import Algorithm
from server_app.rounds.record import RoundRecord


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """A run that begins or goes on.

    Attributes
    ----------
    path : Path
        The run's directory.
    name : str
    completed : int
        Rounds that were done before; 0 for a new run.
    history : sequence of mapping
        Their lines of ``metrics.jsonl``.
    clients : callable
        Returns the names of all clients known by now, by row.
    """

    path: Path
    name: str
    completed: int = 0
    history: Sequence[Mapping[str, Any]] = ()
    clients: Callable[[], Sequence[str]] = tuple


class Callback:
    """Looks on while a run trains; override the hooks of interest.

    A callback whose hook raises is given up with one warning; training goes on.

    Parameters
    ----------
    settings : Settings
        Of the run. What cannot be used raises SettingsError: nothing has begun yet.

    Attributes
    ----------
    tried_again : bool
        Whether it is called again after a failure, and makes up for it then.
    """

    tried_again: ClassVar[bool] = False

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def on_run_begin(self, run: RunStart, strategy: Algorithm) -> str | None:
        """Prepare for a run that begins or goes on.

        Returns
        -------
        str or None
            Why no round shall follow; None lets the run go on.
        """
        return None

    def on_round_end(self, record: RoundRecord, strategy: Algorithm) -> str | None:
        """Take in a round that is finished and kept.

        Parameters
        ----------
        record : RoundRecord
            Its line of ``metrics.jsonl``; ``record.scalars()`` are its numbers.
        strategy : Algorithm
            As the round left it; it is not to be changed.

        Returns
        -------
        str or None
            Why no round shall follow; None lets the run go on.
        """
        return None

    def on_run_end(self) -> None:
        """Finish; the run is complete, or has failed."""
