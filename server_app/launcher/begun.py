"""A simulation before its ServerApp: its directory is made by whoever starts it.

So it is known from the first second where a run is written, and virtual clients keep in
it what devices keep to themselves. The ServerApp goes on with it, as with any run that
was stopped before its first round.
"""

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.settings import Settings
from server_app.launcher.config import RunConfig
from server_app.report.pages import FILE as REPORT
from server_app.run_folder.unbegun import make_run, remove_unbegun


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A run that can be gone on with.

    Attributes
    ----------
    path : Path
        Its directory.
    config : dict
        All its settings, as the ServerApp and its clients get them.
    """

    path: Path
    config: RunConfig

    def places(self, command: Sequence[str], num_rounds: int = 0) -> str:
        """Return where the run is, where its report, and how it is gone on with.

        Parameters
        ----------
        command : sequence of str
            What started it, without ``--clients`` and ``--run-config``.
        num_rounds : int
            How many rounds there shall be when it goes on; 0 for as many as before.
        """
        quote = "'" if set('"\\') & set(str(self.path)) else '"'
        pairs = f"resume-from={quote}{self.path}{quote}"
        if num_rounds:
            pairs += f" num-rounds={num_rounds}"
        # As it can be typed, also where the environment is not activated.
        program = ["expertfleet"]
        if shutil.which("expertfleet") is None:
            program = [sys.executable, "-m", "expertfleet"]
        return (
            f"run:      {self.path}\n"
            f"report:   {(self.path / REPORT).as_uri()}\n"
            f"to go on: {shlex.join([*program, *command, '--run-config', pairs])}"
        )

    @property
    def exists(self) -> bool:
        """Whether there is something to go on with."""
        return self.path.exists()


@contextmanager
def begun(
    run_config: Mapping[str, str | int | float | bool],
    clients: int,
    *,
    one_machine: bool = True,
) -> Iterator[Begun]:
    """Make the directory of a run, or take that of ``resume-from``.

    It is removed at the end if no ServerApp has written in it.

    Parameters
    ----------
    run_config : mapping of str to scalar
        Kebab-case settings; those left out keep their defaults.
    clients : int
        How many are simulated.
    one_machine : bool
        Whether all clients see the run's directory. If not, what they keep is in memory
        unless ``state-dir`` names a directory.

    Raises
    ------
    SettingsError
        If a setting cannot be used, or the directory cannot be written.
    """
    settings = Settings.from_run_config(run_config)
    resumed = settings.run.resume_from
    path = Path(resumed).absolute() if resumed else make_run(settings, clients)
    run = settings.run.model_copy(update={"resume_from": str(path)})
    kept = run.state_dir or (run.state_of_run if one_machine else "")
    places: RunConfig = {"resume-from": str(path), "state-dir": kept}
    try:
        yield Begun(path=path, config={**run_config, **places})
    finally:
        if not resumed:
            remove_unbegun(path)
