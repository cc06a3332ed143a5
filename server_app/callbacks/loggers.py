"""Where the scalars of every round go beside the run's own directory.

``callbacks="tensorboard, mlflow, wandb"``: any of them. A library is imported only when
it is asked for; it is not part of the project's dependencies except in the extra
``loggers``. Each keeps its own environment variables and log-in:

tensorboard
    Event files in ``<run>/tensorboard``.
mlflow
    The experiment ``expertfleet`` at ``MLFLOW_TRACKING_URI``, else in
    ``<output-dir>/mlruns``.
wandb
    The project ``expertfleet``; ``WANDB_MODE=offline`` keeps it in ``<run>/wandb``.
"""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import ClassVar

from common.errors import SettingsError
from common.settings import Settings
from server_app.callbacks.hooks import Callback, RunStart
from server_app.contract import Algorithm
from server_app.rounds.record import RoundRecord

PROJECT = "expertfleet"


class Logger(Callback):
    """A library that takes the scalars of every round.

    Raises
    ------
    SettingsError
        If it is not installed.
    """

    package: ClassVar[str]

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        if find_spec(self.package) is None:
            raise SettingsError(
                f"callbacks = {settings.run.callbacks!r} is not allowed here: "
                f"{self.package} is not installed (pip install {self.package})"
            )


class TensorBoard(Logger):
    """TensorBoard's event files."""

    package = "tensorboard"

    def on_run_begin(self, run: RunStart, strategy: Algorithm) -> None:
        """Open the files; after a resume, what was logged of later rounds is void."""
        writer = import_module("torch.utils.tensorboard").SummaryWriter
        self._writer = writer(
            str(run.path / "tensorboard"),
            purge_step=run.completed + 1 if run.completed else None,
        )
        if not run.completed:
            config = self.settings.to_run_config()
            rows = "".join(f"| {key} | {value} |\n" for key, value in config.items())
            self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")

    def on_round_end(self, record: RoundRecord, strategy: Algorithm) -> None:
        """Write the scalars of one round."""
        for key, value in record.scalars().items():
            self._writer.add_scalar(key, value, record.round)
        self._writer.flush()

    def on_run_end(self) -> None:
        """Write what is pending."""
        self._writer.close()


class MLflow(Logger):
    """A run of an MLflow experiment; a resumed one goes on in the same run."""

    package = "mlflow"

    def on_run_begin(self, run: RunStart, strategy: Algorithm) -> None:
        """Find the run, or make it."""
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            # MLflow asks for this consent to its store of plain files.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (run.path.parent / "mlruns").as_uri()
        self._client = import_module("mlflow").MlflowClient(tracking_uri=uri)
        experiment = self._client.get_experiment_by_name(PROJECT)
        number = (
            experiment.experiment_id
            if experiment is not None
            else self._client.create_experiment(PROJECT)
        )
        named = f"attributes.run_name = '{run.name}'"
        earlier = run.completed and self._client.search_runs(
            [number], filter_string=named
        )
        if earlier:
            self._run = earlier[0].info.run_id
            return
        self._run = self._client.create_run(number, run_name=run.name).info.run_id
        for key, value in self.settings.to_run_config().items():
            self._client.log_param(self._run, key, value)

    def on_round_end(self, record: RoundRecord, strategy: Algorithm) -> None:
        """Send the scalars of one round."""
        for key, value in record.scalars().items():
            self._client.log_metric(self._run, key, value, step=record.round)

    def on_run_end(self) -> None:
        """Mark the run as over."""
        self._client.set_terminated(self._run)


class WandB(Logger):
    """A run of Weights & Biases, online or offline as the user's environment says."""

    package = "wandb"

    def on_run_begin(self, run: RunStart, strategy: Algorithm) -> None:
        """Open the run; an id that exists already is continued."""
        self._run = import_module("wandb").init(
            project=PROJECT,
            name=run.name,
            id=run.name,
            dir=str(run.path),
            config=self.settings.to_run_config(),
            resume="allow",
        )

    def on_round_end(self, record: RoundRecord, strategy: Algorithm) -> None:
        """Send the scalars of one round."""
        self._run.log(record.scalars(), step=record.round)

    def on_run_end(self) -> None:
        """Write what is pending and end the service process."""
        self._run.finish()
