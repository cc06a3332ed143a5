"""One run as the round loop sees it: what is kept of it, then who looks on.

A round is on the disk (``server_app.run_folder.folder``) before a callback hears of it
(``server_app.callbacks.callbacks``), so nothing optional can cost one.
"""

import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from common.code_hash import code_hash
from common.files import atomic_write
from common.settings import Settings
from server_app.callbacks.callbacks import Callbacks
from server_app.callbacks.guard import Guard
from server_app.callbacks.hooks import RunStart
from server_app.contract import Algorithm
from server_app.rounds.record import RoundRecord
from server_app.run_folder.folder import RunFolder
from server_app.run_folder.resuming import settings_kept
from server_app.run_folder.run_files import FACTS
from server_app.run_folder.run_state import RUNNING, ended

logger = logging.getLogger("flwr.expertfleet")


class RunLog:
    """Holds the directory of one run, and its callbacks.

    Parameters
    ----------
    settings : Settings
        Of ``callbacks``, and see :class:`RunFolder`, whose errors are raised.

    Attributes
    ----------
    run : RunFolder
    stopped : str or None
        Why no round shall follow, whatever ``num-rounds`` is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._callbacks = Callbacks(settings)
        self._guard = Guard()
        self.run = RunFolder(settings)
        self.stopped: str | None = None
        self._opened = False

    def __enter__(self) -> Self:
        """Return the log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, *_: object
    ) -> None:
        """Note how the run ended, and close it."""
        try:
            if self._opened:  # before, nothing was begun or gone on with
                self.tell(**ended(error))
        finally:
            self.close()

    def open(
        self,
        strategy: Algorithm,
        completed: int = 0,
        clients: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """Write ``run.json``, drop what was logged after the round to go on from.

        Parameters
        ----------
        strategy : Algorithm
            As it is after that round.
        completed : int
            The round that :meth:`RunFolder.newest` is the state after.
        clients : callable
            Returns the names of all clients known by now, by row.
        """
        history: Sequence[Mapping[str, Any]] = ()
        if self.run.resumed:
            history = self.run.restore(completed)
        self.run.write_facts(
            run=self.run.name,
            settings=settings_kept(self._settings),
            code_hash=code_hash(self._settings),
            versions={
                name: version(name)
                for name in ("flwr", "torch", "numpy", "ortools", "pydantic")
            }
            | {"python": platform.python_version()},
            stopped=None,
            state=RUNNING,
            why="",
        )
        self._opened = True
        start = RunStart(
            path=self.run.path,
            name=self.run.name,
            completed=completed,
            history=history,
            clients=clients,
        )
        if why := self._callbacks.on_run_begin(start, strategy):
            self.stop(why)

    def show(self, record: RoundRecord, strategy: Algorithm) -> None:
        """Tell the callbacks of a round; the strategy is as the round left it."""
        if why := self._callbacks.on_round_end(record, strategy):
            self.stop(why)

    def stop(self, why: str) -> None:
        """Let no round follow, and say why."""
        logger.info("no round follows: %s", why)
        self.stopped = why
        self.tell(stopped=why)

    def tell(self, **facts: Any) -> None:
        """Add facts to ``run.json`` that nobody needs to go on."""
        self._guard(FACTS, partial(self.run.write_facts, **facts))

    def learned(self, measure: Callable[[], NDArray[np.float64] | None]) -> None:
        """Keep what each expert recognises now.

        Parameters
        ----------
        measure : callable
            Returns the share of each class's test samples that each expert alone gets
            right, shape (E, K), or None.
        """

        def keep() -> None:
            if (recall := measure()) is not None:
                with atomic_write(self.run.path / "expert_classes.npz") as file:
                    np.savez_compressed(file, recall=recall)

        self._guard("expert_classes.npz", keep)

    def close(self) -> None:
        """Let go of callbacks and directory; the run is over."""
        try:
            self._callbacks.on_run_end()
        finally:  # an impatient Ctrl-C leaves no lock in a notebook
            self.run.release()
