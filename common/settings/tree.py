"""The settings: one frozen, typed tree, and the only place that checks user input.

Flower hands both sides the same flat ``run-config`` of kebab-case keys.
:meth:`Settings.from_run_config` turns it into nested, frozen sections
(``common.settings.sections``) and refuses whatever is unknown, ill-typed or out of
range with one line that names the key, the value and what is allowed. Names of parts
that only the server has (strategies, scorers, merging rules) are checked there; options
of a single algorithm live in its file and arrive through ``strategy-options``.
"""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from common.errors import SettingsError, nearest
from common.settings.capacity_tiers import CapacityTiers
from common.settings.model_settings import ModelSettings
from common.settings.run_settings import RunSettings
from common.settings.sections import (
    AssignmentSettings,
    DataSettings,
    MergeSettings,
    RoundSettings,
    SkewSettings,
    StressSettings,
    WireSettings,
)
from common.settings.training_settings import TrainingSettings


class Settings(BaseModel):
    """Everything a run is made of. Equal settings and seed give equal bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: RunSettings = RunSettings()
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    rounds: RoundSettings = RoundSettings()
    assignment: AssignmentSettings = AssignmentSettings()
    wire: WireSettings = WireSettings()
    merge: MergeSettings = MergeSettings()
    skew: SkewSettings = SkewSettings()
    stress: StressSettings = StressSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        experts = self.model.num_experts
        if self.rounds.expert_capacity.largest > experts:
            raise SettingsError(
                f"expert-capacity = {str(self.rounds.expert_capacity)!r} is not "
                f"allowed: a client holds 1 to num-experts = {experts} experts"
            )
        if self.model.top_k > experts:
            raise SettingsError(
                f"top-k = {self.model.top_k} is not allowed: 0 to num-experts = "
                f"{experts}"
            )
        asked, needed = self.rounds.clients_per_round, self.rounds.min_replies
        if 0 < asked < needed:
            raise SettingsError(
                f"min-replies = {needed} is not allowed: a round waits for at most "
                f"clients-per-round = {asked} replies"
            )
        rising = self.training.lr_warmup
        if rising >= self.rounds.num_rounds:
            raise SettingsError(
                f"lr-warmup = {rising} is not allowed: fewer than num-rounds = "
                f"{self.rounds.num_rounds}"
            )
        if self.data.task:
            self._fits_own_data()
        return self

    def training_in(self, server_round: int) -> TrainingSettings:
        """Return the settings of training with the learning rate of a round."""
        return self.training.in_round(server_round, self.rounds.num_rounds)

    def _fits_own_data(self) -> None:
        """Refuse what needs a data set that all share."""
        for key, value, why in (
            (
                "reserved-samples",
                self.data.reserved_samples,
                "the server has no data set to keep samples of",
            ),
            (
                "train-samples",
                self.data.train_samples,
                "a device trains on all samples of its own",
            ),
            (
                "drift",
                self.stress.drift,
                "no device hands samples of its own on to another",
            ),
        ):
            if value:
                raise SettingsError(f"{key} = {value} is not allowed with task: {why}")

    @classmethod
    def from_run_config(cls, run_config: Mapping[str, Any]) -> Self:
        """Parse Flower's flat run-config; keys left out keep their defaults.

        Parameters
        ----------
        run_config : Mapping[str, Any]
            Kebab-case keys to scalars, as in ``[tool.flwr.app.config]``.

        Raises
        ------
        SettingsError
            With one line that names the key, the value and what is allowed.
        """
        tree: dict[str, dict[str, Any]] = {}
        for key, value in run_config.items():
            if key not in _SECTION_OF:
                hint = _RENAMED.get(key) or nearest(key, _SECTION_OF)
                raise SettingsError(f"unknown setting {key!r}{hint}")
            tree.setdefault(_SECTION_OF[key], {})[key] = value
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise SettingsError(explain(error)) from None

    def to_run_config(self) -> dict[str, str | int | float | bool]:
        """Return the flat run-config that parses to these settings again."""
        flat: dict[str, str | int | float | bool] = {}
        for section in type(self).model_fields:
            for name, value in getattr(self, section):
                key = name.replace("_", "-")
                flat[key] = str(value) if isinstance(value, CapacityTiers) else value
        return flat


_SECTION_OF: dict[str, str] = {
    name.replace("_", "-"): section
    for section, field in Settings.model_fields.items()
    for name in field.annotation.model_fields  # type: ignore[union-attr]
}

_RENAMED = {"sinks": "; name tensorboard, mlflow and wandb in 'callbacks'"}


def explain(error: ValidationError) -> str:
    """Return one line for a pydantic error: key, value, what is allowed."""
    lines = []
    for item in error.errors():
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, SettingsError):
            lines.append(str(cause))
            continue
        key = str(item["loc"][-1]) if item["loc"] else ""
        value = item["input"]
        reason = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            reason = "this name is unknown"
        elif item["type"] == "literal_error" and isinstance(value, str):
            expected = item["ctx"]["expected"].replace(" or ", ", ").split(", ")
            reason += nearest(value, [name.strip("'") for name in expected])
        section = Settings.model_fields.get(_SECTION_OF.get(key, ""))
        hint = ""
        if section is not None and not isinstance(cause, ValueError):
            field = section.annotation.model_fields[  # type: ignore[union-attr]
                key.replace("-", "_")
            ]
            hint = f" ({key}: {field.description})"
        lines.append(f"{key} = {value!r} is not allowed: {reason}{hint}")
    return "; ".join(lines)
