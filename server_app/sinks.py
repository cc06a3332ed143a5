"""Where the scalars of every round go beside the run's own directory.

``sinks="tensorboard, mlflow, wandb"``: any of them, in any order. A library is imported
only when it is asked for; it is not part of the project's dependencies except in the
extra ``sinks``. Each keeps its own environment variables and log-in:

tensorboard
    Event files in ``<run>/tensorboard``.
mlflow
    The experiment ``expertfleet`` at ``MLFLOW_TRACKING_URI``, else in
    ``<output-dir>/mlruns``.
wandb
    The project ``expertfleet``; ``WANDB_MODE=offline`` keeps it in ``<run>/wandb``.
"""

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from common.sections import SettingsError, nearest

logger = logging.getLogger("flwr.expertfleet")

PROJECT = "expertfleet"

Scalars = Mapping[str, int | float]
Config = Mapping[str, str | int | float | bool]


class Sink(Protocol):
    """One place scalars go to."""

    def log(self, server_round: int, scalars: Scalars) -> None:
        """Take the scalars of one round."""

    def close(self) -> None:
        """Write what is pending; nothing is logged after."""


class TensorBoard:
    """TensorBoard's event files."""

    def __init__(self, folder: Path, name: str, config: Config, resumed: int) -> None:
        del name  # the directory carries it
        writer = import_module("torch.utils.tensorboard").SummaryWriter
        # After a resume, what was logged of later rounds is void.
        self._writer = writer(
            str(folder / "tensorboard"), purge_step=resumed + 1 if resumed else None
        )
        if not resumed:
            rows = "".join(f"| {key} | {value} |\n" for key, value in config.items())
            self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")

    def log(self, server_round: int, scalars: Scalars) -> None:
        """Take the scalars of one round."""
        for key, value in scalars.items():
            self._writer.add_scalar(key, value, server_round)
        self._writer.flush()

    def close(self) -> None:
        """Write what is pending."""
        self._writer.close()


class MLflow:
    """A run of an MLflow experiment; a resumed one goes on in the same run."""

    def __init__(self, folder: Path, name: str, config: Config, resumed: int) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            # MLflow asks for this consent to its store of plain files.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (folder.parent / "mlruns").as_uri()
        self._client = import_module("mlflow").MlflowClient(tracking_uri=uri)
        experiment = self._client.get_experiment_by_name(PROJECT)
        number = (
            experiment.experiment_id
            if experiment is not None
            else self._client.create_experiment(PROJECT)
        )
        earlier = (
            self._client.search_runs(
                [number], filter_string=f"attributes.run_name = '{name}'"
            )
            if resumed
            else []
        )
        if earlier:
            self._run = earlier[0].info.run_id
            return
        self._run = self._client.create_run(number, run_name=name).info.run_id
        for key, value in config.items():
            self._client.log_param(self._run, key, value)

    def log(self, server_round: int, scalars: Scalars) -> None:
        """Take the scalars of one round."""
        for key, value in scalars.items():
            self._client.log_metric(self._run, key, value, step=server_round)

    def close(self) -> None:
        """Mark the run as over."""
        self._client.set_terminated(self._run)


class WandB:
    """A run of Weights & Biases, online or offline as the user's environment says."""

    def __init__(self, folder: Path, name: str, config: Config, resumed: int) -> None:
        del resumed  # an id that exists already is continued
        self._run = import_module("wandb").init(
            project=PROJECT,
            name=name,
            id=name,
            dir=str(folder),
            config=dict(config),
            resume="allow",
        )

    def log(self, server_round: int, scalars: Scalars) -> None:
        """Take the scalars of one round."""
        self._run.log(dict(scalars), step=server_round)

    def close(self) -> None:
        """Write what is pending and end the service process."""
        self._run.finish()


SINKS: dict[str, tuple[Callable[[Path, str, Config, int], Sink], str]] = {
    "tensorboard": (TensorBoard, "tensorboard"),
    "mlflow": (MLflow, "mlflow"),
    "wandb": (WandB, "wandb"),
}
"""Name to what makes it and the package it needs."""


def sink_names(text: str) -> list[str]:
    """Return the sinks a ``sinks`` setting names.

    Raises
    ------
    SettingsError
        For a name that is unknown, or whose library is not installed.
    """
    names = list(
        dict.fromkeys(part.strip() for part in text.split(",") if part.strip())
    )
    for name in names:
        if name not in SINKS:
            raise SettingsError(
                f"sinks = {text!r} is not allowed: {name!r} is unknown, choose from "
                f"{', '.join(SINKS)}{nearest(name, SINKS)}"
            )
        package = SINKS[name][1]
        if find_spec(package) is None:
            raise SettingsError(
                f"sinks = {text!r} is not allowed here: {package} is not installed "
                f"(pip install {package})"
            )
    return names


class Sinks:
    """All sinks of one run.

    A sink that fails is reported and let go: a tracking server that is down must not
    end a training run of days.

    Parameters
    ----------
    names : sequence of str
        From :func:`sink_names`.
    folder : Path
        The run's directory.
    run : str
        Its name.
    config : mapping
        Its settings, flat.
    resumed : int
        Rounds that were there before; 0 for a new run.

    Raises
    ------
    SettingsError
        If one cannot be opened; nothing has been trained yet.
    """

    def __init__(
        self, names: list[str], folder: Path, run: str, config: Config, resumed: int
    ) -> None:
        self._open: dict[str, Sink] = {}
        for name in names:
            try:
                self._open[name] = SINKS[name][0](folder, run, config, resumed)
            except Exception as error:  # each library has errors of its own
                raise SettingsError(
                    f"sink {name!r} cannot be opened: {_first_line(error)}"
                ) from error

    def log(self, server_round: int, scalars: Scalars) -> None:
        """Give every sink the scalars of one round."""
        for name, sink in list(self._open.items()):
            self._guarded(name, partial(sink.log, server_round, scalars))

    def close(self) -> None:
        """Close every sink."""
        for name, sink in list(self._open.items()):
            self._guarded(name, sink.close)
        self._open.clear()

    def _guarded(self, name: str, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:
            logger.warning("sink %s is given up: %s", name, _first_line(error))
            del self._open[name]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
