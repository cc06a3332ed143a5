"""The settings of a run as a whole: its algorithm, its seed, what is written where."""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from common.errors import SettingsError
from common.settings.section import Section
from common.settings.sizes import parse_bytes

CLIENTS = "clients"
"""In the directory of a simulation: what its clients keep."""


class RunSettings(Section):
    """The algorithm, the seed and where things are written."""

    strategy: str = Field(
        "flex-moe", description="a name, an entry point, module:Class or flwr:Class"
    )
    strategy_options: str = Field(
        "", description='options of the strategy as TOML pairs, "mu=0.01, decay=0.9"'
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of everything, 0 to 2^32-1")
    output_dir: str = Field(
        "results", min_length=1, description="directory the run is written to"
    )
    state_dir: str = Field(
        "",
        description="directory in which clients keep what stays with them, as private "
        "gates; empty: of a simulation in the run's own, else in memory",
    )
    feature_cache: str = Field(
        "4G",
        description="room on the disk for what frozen layers give, computed once, as "
        "in 800M; 0 computes it in every pass",
    )
    resume_from: str = Field(
        "", description="directory of a run to go on with; empty starts a new one"
    )
    replay_arrivals: str = Field(
        "",
        description="directory of a run whose replies are merged again in the rounds "
        "they were merged in; empty: as they come",
    )
    keep_checkpoints: int = Field(
        3, ge=1, description="checkpoints kept of a run, at least 1"
    )
    callbacks: str = Field(
        "",
        description="what else looks on: tensorboard, mlflow, wandb, prometheus, otlp, "
        "early-stopping or module:attr, separated by commas",
    )
    stop_measure: str = Field(
        "server_global",
        description="by which the best checkpoint is kept, and what early-stopping "
        "watches: a number of the run log",
    )
    stop_mode: Literal["max", "min"] = Field(
        "max", description="whether more of stop-measure is better, or less"
    )
    stop_patience: int = Field(
        10, ge=1, description="measured rounds without a better one before a stop"
    )
    on_collapse: Literal["roll-back", "stop", "go-on"] = Field(
        "roll-back",
        description="what follows when most replies of a round are refused, or when "
        "stop-measure has lost more than half of its best (above guessing) three times "
        "in a row: back to the best checkpoint, stop, or nothing",
    )
    client_metrics: str = Field(
        "",
        description="numbers that devices report of their own: a name or module:attr",
    )
    fleet_list: str = Field(
        "",
        description="file of what the owners of devices allow them (a fleet's "
        "fleet.json); empty: the list in the server's environment "
        "(EXPERTFLEET_OWNERS), without one devices are believed",
    )
    unknown_clients: Literal["refuse", "admit"] = Field(
        "refuse", description="what happens to clients that are not in fleet-list"
    )

    @property
    def state_of_run(self) -> str:
        """Where virtual clients keep what stays with them, if nothing else is said."""
        return str(Path(self.resume_from) / CLIENTS) if self.resume_from else ""

    @field_validator("feature_cache")
    @classmethod
    def _is_size(cls, value: str) -> str:
        parse_bytes(value)
        return value

    def parsed_strategy_options(self) -> dict[str, Any]:
        """Return ``strategy-options`` as a dictionary.

        Raises
        ------
        SettingsError
            If the text is not a comma-separated list of TOML ``key=value`` pairs.
        """
        try:
            return dict(tomllib.loads(f"options = {{{self.strategy_options}}}"))[
                "options"
            ]
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(
                f"strategy-options = {self.strategy_options!r} is not a list of "
                f"key=value pairs separated by commas: {error}"
            ) from None
