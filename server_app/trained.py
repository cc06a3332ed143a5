"""The mixture of a run, rebuilt from its directory as the strategy itself predicts.

``run.json`` says which strategy, settings and inputs; the newest checkpoint holds the
strategy's state. Neither the data set nor a device is needed, and the run may still be
going on.
"""

import json
from collections.abc import Hashable
from pathlib import Path

from common.config import Settings
from common.inputs import Inputs
from common.serving.servable import Servable, SourceError
from common.shape import model_spec
from server_app.checkpoint import newest_intact
from server_app.frozen import from_run, with_base
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
        """Return which checkpoint is the newest and when it was written."""
        files = sorted((self._folder / "checkpoints").glob("round-*.ckpt"))
        for path in reversed(files):
            try:
                stat = path.stat()
            except OSError:  # dropped by the run meanwhile
                continue
            return path.name, stat.st_mtime_ns, stat.st_ino
        raise self._nothing()

    def load(self) -> Servable:
        """Build the strategy's own predictor.

        Raises
        ------
        SourceError
            If this is no run, it has no intact checkpoint, or its strategy cannot be
            loaded here.
        """
        try:
            facts = json.loads((self._folder / "run.json").read_text())
            settings = from_run(
                self._folder, Settings.from_run_config(facts["settings"])
            )
            inputs = Inputs.from_facts(facts["inputs"])
            run = str(facts["run"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise SourceError(
                f"{self._folder} is not the directory of a run: run.json: {reason}"
            ) from None
        found = newest_intact(self._folder)
        if found is None:
            raise self._nothing()
        path, state = found
        try:
            kind = find_strategy(settings.run.strategy)
            spec = with_base(model_spec(settings, inputs), settings)
            strategy = kind(settings, spec)
            strategy.model = dict(state["model"])
            strategy.load_state(state["strategy"])
            predictor = strategy.global_model()
        except (ValueError, KeyError) as error:
            raise SourceError(f"{path} cannot be used: {error}") from None
        return Servable(
            predictor=predictor,
            inputs=inputs,
            run=run,
            server_round=int(state["completed"]),
            experts=tuple(range(strategy.spec.num_units)),
        )

    def _nothing(self) -> SourceError:
        return SourceError(
            f"{self._folder} has no intact checkpoint: a run writes one after every "
            "round"
        )
