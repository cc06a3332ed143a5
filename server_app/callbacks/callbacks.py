"""The callbacks of one run: which there are, called in turn, each guarded.

``callbacks="tensorboard, early-stopping"``: any of :data:`CALLBACKS`, an entry point of
the group ``expertfleet.callbacks``, or ``module:attr`` for a
:class:`~server_app.callbacks.hooks.Callback` of one's own. The table, fitness and
the report are always on.
"""

import logging
from functools import partial
from typing import Any

from common.errors import SettingsError
from common.registry import Registry
from common.settings import Settings
from common.text import reason
from server_app.callbacks.guard import Guard
from server_app.callbacks.hooks import Callback, RunStart
from server_app.callbacks.live_report import LiveReport
from server_app.callbacks.matrix_files import ConfusionMatrix, FitnessRows
from server_app.callbacks.table import Table
from server_app.contract import Algorithm
from server_app.run_folder.matrices import FITNESS
from server_app.run_folder.run_files import CONFUSION

logger = logging.getLogger("flwr.expertfleet")

CALLBACKS = Registry(
    kind="callbacks",
    setting="callbacks",
    built_in={
        "early-stopping": "server_app.callbacks.early_stopping:EarlyStopping",
        "mlflow": "server_app.callbacks.loggers:MLflow",
        "otlp": "server_app.callbacks.metric_senders:OTLP",
        "prometheus": "server_app.callbacks.metric_senders:Prometheus",
        "tensorboard": "server_app.callbacks.loggers:TensorBoard",
        "wandb": "server_app.callbacks.loggers:WandB",
    },
    expected="a subclass of Callback",
    accepts=lambda found: isinstance(found, type) and issubclass(found, Callback),
)


def find_callbacks(settings: Settings) -> dict[str, Callback]:
    """Return the callbacks that ``callbacks`` names, by name.

    Raises
    ------
    SettingsError
        If a name is unknown, or a callback cannot be used with these settings.
    """
    names = dict.fromkeys(part.strip() for part in settings.run.callbacks.split(","))
    return {name: _made(name, settings) for name in names if name}


def _made(name: str, settings: Settings) -> Callback:
    make = CALLBACKS.find(name)
    try:
        found: Callback = make(settings)
    except SettingsError:
        raise
    except Exception as error:  # nothing is trained yet: better now than in an hour
        raise CALLBACKS.error(name, f"cannot be made: {reason(error)}") from error
    return found


class Callbacks:
    """All callbacks of one run.

    Parameters
    ----------
    settings : Settings

    Raises
    ------
    SettingsError
        As :func:`find_callbacks`.
    """

    def __init__(self, settings: Settings) -> None:
        self._guard = Guard()
        self._active: dict[str, Callback] = {
            "the table": Table(settings),
            FITNESS: FitnessRows(settings),
            CONFUSION: ConfusionMatrix(settings),
            **find_callbacks(settings),
            "report.html": LiveReport(settings),  # last: it shows what the others write
        }

    def on_run_begin(self, run: RunStart, strategy: Algorithm) -> str | None:
        """Let everyone prepare; return why no round shall follow, or None."""
        return self._each("on_run_begin", run, strategy)

    def on_round_end(self, record: Any, strategy: Algorithm) -> str | None:
        """Show everyone a round; return why no round shall follow, or None."""
        return self._each("on_round_end", record, strategy)

    def on_run_end(self) -> None:
        """Let everyone finish."""
        self._each("on_run_end")

    def _each(self, hook: str, *args: Any) -> str | None:
        reasons = {}
        for name, callback in list(self._active.items()):
            act = partial(getattr(callback, hook), *args)
            if callback.tried_again:
                reasons[name] = self._guard(name, act)
                continue
            try:
                reasons[name] = act()
            except Exception as error:  # each library has errors of its own
                logger.warning("callback %s is given up: %s", name, reason(error))
                del self._active[name]
        return (
            "; ".join(f"{name}: {why}" for name, why in reasons.items() if why) or None
        )
