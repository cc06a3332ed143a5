"""A run's arrivals, read from its log so that they can be repeated bit for bit.

What a run computes depends on whose reply was merged in which round, and on nothing
else that is chance: its log names both. A run that replays it asks those it asked, and
ends each round when exactly the replies have come that it merged.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import SettingsError
from server_app.run_error import RunError
from server_app.run_folder.run_files import RunFileError, read_metrics


class Arrivals:
    """Who was asked in each round of a run, and who was merged.

    Parameters
    ----------
    folder : Path
        The run's directory.

    Raises
    ------
    SettingsError
        If its log cannot be read, or is of a version that does not say it.
    """

    def __init__(self, folder: Path) -> None:
        place = f"replay-arrivals = {str(folder)!r}"
        try:
            lines, damaged = read_metrics(folder)
        except RunFileError as error:
            raise SettingsError(f"{place}: {error}") from None
        if damaged or not lines:
            what = f"damaged lines {damaged[:5]}" if damaged else "no rounds"
            raise SettingsError(f"{place}: its log has {what}")
        if any("order_round" not in c for line in lines for c in line["clients"]):
            raise SettingsError(
                f"{place}: its log does not say which orders were answered: it is of "
                "an older version"
            )
        self._lines = {line["round"]: line for line in lines}

    def _clients(self, server_round: int) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = self._lines[server_round]["clients"]
        except KeyError:
            raise RunError(
                f"round {server_round} is not in the log of replay-arrivals"
            ) from None
        return found

    def asked(self, server_round: int) -> dict[str, list[int]]:
        """Return what each client that was asked in a round was to hold, by name."""
        return {
            client["client"]: client["experts"]
            for client in self._clients(server_round)
            if client["order_round"] == server_round
        }

    def merged(self, server_round: int) -> set[str]:
        """Return the names of those whose reply was merged in a round."""
        return {c["client"] for c in self._clients(server_round) if c["replied"]}

    def check_plan(
        self, server_round: int, planned: Mapping[str, Sequence[int]]
    ) -> None:
        """Raise RunError if others are planned, or hold others, than in the log.

        Parameters
        ----------
        server_round : int
        planned : mapping of str to sequence of int
            Experts of each client that is to be asked.
        """
        asked = self.asked(server_round)
        if planned == asked:
            return
        [name, *_] = sorted(
            name
            for name in asked.keys() | planned.keys()
            if asked.get(name) != planned.get(name)
        )
        raise RunError(
            f"round {server_round} cannot be replayed: {name} holds "
            f"{planned.get(name, 'nothing')}, and {asked.get(name, 'nothing')} in the "
            "log of replay-arrivals: the fleet, the settings or the code are others"
        )

    def check_replies(self, server_round: int, merged: set[str]) -> None:
        """Raise RunError if not exactly those were merged whom the log names."""
        if others := sorted(self.merged(server_round) ^ merged):
            raise RunError(
                f"round {server_round} cannot be replayed: whether {others[0]} replied "
                "is not as in the log of replay-arrivals"
            )
