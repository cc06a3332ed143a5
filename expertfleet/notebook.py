"""A run as a function, and what came of it as tables: for notebooks and scripts."""

import html
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server_app.commands.simulate import plain_log, simulate
from server_app.launcher.client_count import fleet_size, settings_validator
from server_app.launcher.config import (
    THIS_APP,
    RunConfigError,
    app_defaults,
    parse_run_config,
    resolve,
)
from server_app.report.pages import run_page
from server_app.report.run_data import read_run
from server_app.run_folder.run_files import read_facts, read_metrics
from server_app.run_source import RunSource

if TYPE_CHECKING:
    import pandas

Scalar = str | int | float | bool


class Run:
    """What a run has written so far.

    Parameters
    ----------
    path : Path
        Its directory.

    Raises
    ------
    RunFileError
        If it is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings: Mapping[str, Scalar] = read_facts(path)["settings"]
        self._lines = read_metrics(path)[0]

    @cached_property
    def rounds(self) -> "pandas.DataFrame":
        """A row for each round: all its numbers, ``round`` the index."""
        numbers = [
            {k: v for k, v in line.items() if v is None or isinstance(v, int | float)}
            for line in self._lines
        ]
        return _pandas().DataFrame(numbers).set_index("round")

    @cached_property
    def clients(self) -> "pandas.DataFrame":
        """A row for each client asked in a round: what it held and what it said."""
        rows = [
            {"round": line["round"], **client}
            for line in self._lines
            for client in line["clients"]
        ]
        return _pandas().DataFrame(rows)

    def model(self) -> RunSource:
        """Return where the trained mixture is loaded from."""
        return RunSource(self.path)

    def _repr_html_(self) -> str:
        page = html.escape(run_page(read_run(self.path)))
        style = "width:100%;height:640px;border:0"
        return f'<iframe srcdoc="{page}" style="{style}"></iframe>'

    def __repr__(self) -> str:
        last = self._lines[-1] if self._lines else {}
        shown = ", ".join(
            f"{name} {last[name]:.4f}"
            for name in ("server_global", "fleet", "client_global", "client_local")
            if last.get(name) is not None
        )
        return f"Run({str(self.path)!r}: {len(self._lines)} rounds; {shown})"


def run(
    config: str | Path = "",
    *,
    clients: int | None = None,
    quiet: bool = False,
    **settings: Scalar,
) -> Run:
    """Train in this process and return the run.

    Parameters
    ----------
    config : str or Path
        ``key=value`` pairs or a TOML file, as ``--run-config`` takes them.
    clients : int, optional
        Simulated clients; 20 by default, or as many as there are folders.
    quiet : bool
        Whether to print warnings and errors only.
    **settings
        Any setting, with ``_`` for ``-``; they win over ``config``.

    Raises
    ------
    RunConfigError
        If a setting is unknown or cannot be used.
    RunError
        If the run could not go on.

    Examples
    --------
    >>> import expertfleet
    >>> found = expertfleet.run(strategy="flex-moe", num_rounds=3, clients=10)
    ... # doctest: +SKIP
    >>> found.rounds["server_global"].plot()  # doctest: +SKIP
    """
    given = parse_run_config([str(config)] if config else [])
    given |= {name.replace("_", "-"): value for name, value in settings.items()}
    defaults = app_defaults(THIS_APP)
    check = settings_validator(THIS_APP, clients)
    overrides = resolve(given, defaults, Path.cwd(), check)
    number = fleet_size(clients, {**defaults, **overrides})
    # A notebook shows what is on standard error as if it were wrong.
    with plain_log(quiet=quiet, aside=sys.stdout):
        return Run(simulate({**defaults, **overrides}, number))


def open_run(path: str | Path) -> Run:
    """Return a run that was made before; raises RunFileError if there is none."""
    return Run(Path(path))


def _pandas() -> Any:
    try:
        import pandas
    except ModuleNotFoundError:
        raise RunConfigError(
            "pandas is missing: pip install 'expertfleet[notebook]'"
        ) from None
    return pandas
