"""Where a client keeps what stays with it: below a state directory, else in memory.

Not here: the files and what reads and writes them (``client_app.kept.store``).
"""

from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context

from client_app.kept.store import BaseStore, ContextStore, DirectoryStore, Store


@dataclass(frozen=True, kw_only=True)
class Home:
    """One client's place.

    Attributes
    ----------
    context : Context
        Of the message being handled: its state is the memory.
    client : str
    folder : str
        The state directory; "" for memory.
    in_run : bool
        Whether that is the directory of the run, where the virtual clients of a
        simulation keep what devices keep to themselves.
    """

    context: Context
    client: str
    folder: str = ""
    in_run: bool = False

    @property
    def state_dir(self) -> str:
        """Where is kept what outlives the run; "" for memory.

        Caches in the directory of a run would be made anew in every run.
        """
        return "" if self.in_run else self.folder

    def store(self, run: str) -> Store:
        """Return what this client keeps in a run.

        Syncing each file of every virtual client would make a simulation twice as slow,
        and is left to the disk.
        """
        if self.folder:
            synced = not self.in_run
            return DirectoryStore(self.folder, run, self.client, synced=synced)
        return ContextStore(self.context, run)

    def privacy(self) -> Store:
        """Return where is kept what all runs together have spent of its privacy."""
        if self.folder:
            return DirectoryStore(self.folder, "privacy", self.client)
        return ContextStore(self.context, "/privacy")

    def bases(self) -> Store:
        """Return where frozen bases are kept: for all runs, where that is possible."""
        if self.state_dir:
            return BaseStore(self.state_dir)
        return ContextStore(self.context, "/bases")

    def cache(self, name: str) -> Path | None:
        """Return the directory of a cache; None without a place for one."""
        return Path(self.state_dir) / name if self.state_dir else None
