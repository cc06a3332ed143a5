"""The mixture of a run, rebuilt from its directory as the strategy itself predicts.

``run.json`` says which strategy, settings and task; the newest checkpoint holds the
strategy's state. Neither the data set nor a device is needed, and the run may still be
going on.
"""

from collections.abc import Hashable
from functools import partial
from pathlib import Path

from common.errors import SourceError
from common.inputs import kept_task
from common.serving.servable import Servable
from common.settings import Settings
from common.shape import model_spec, tokeniser_for
from server_app.run_folder.base_file import from_run, with_base
from server_app.run_folder.checkpoint import newest_intact, newest_written
from server_app.run_folder.run_files import RunFileError, read_facts
from server_app.strategies import find_strategy


class RunSource:
    """The newest model of one run.

    Parameters
    ----------
    folder : Path
        The run's directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def version(self) -> Hashable:
        """Return which checkpoint was written last and when."""
        if (found := newest_written(self._folder)) is None:
            raise self._nothing()
        return found

    def load(self) -> Servable:
        """Build the strategy's own predictor.

        Raises
        ------
        SourceError
            If this is no run, it has no intact checkpoint, or its strategy cannot be
            loaded here.
        """
        try:
            facts = read_facts(self._folder)
            settings = from_run(
                self._folder, Settings.from_run_config(facts["settings"])
            )
            task = kept_task(facts)
            run = str(facts["run"])
        except RunFileError as error:
            raise SourceError(str(error)) from None
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(
                f"{self._folder} is not the directory of a run: run.json: {error}"
            ) from None
        found = newest_intact(self._folder)
        if found is None:
            raise self._nothing()
        path, state = found
        try:
            kind = find_strategy(settings.run.strategy)
            spec = with_base(model_spec(settings, task), settings)
            strategy = kind(settings, spec)
            strategy.model = dict(state["model"])
            strategy.load_state(state["strategy"])
            if (predictor := strategy.global_model()) is None:
                raise SourceError(f"{self._folder}: {strategy.no_predictor}")
        except (ValueError, KeyError) as error:
            raise SourceError(f"{path} cannot be used: {error}") from None
        return Servable(
            predictor=predictor,
            task=task,
            run=run,
            server_round=int(state["completed"]),
            experts=tuple(range(strategy.spec.num_units)),
            find_tokeniser=partial(tokeniser_for, settings),
        )

    def _nothing(self) -> SourceError:
        return SourceError(
            f"{self._folder} has no intact checkpoint: a run writes one after every "
            "round"
        )
