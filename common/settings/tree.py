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
from common.settings.privacy_settings import PrivacySettings
from common.settings.round_settings import RoundSettings
from common.settings.run_settings import RunSettings
from common.settings.sections import (
    AssignmentSettings,
    DataSettings,
    MergeSettings,
    SkewSettings,
    StressSettings,
    WireSettings,
)
from common.settings.training_settings import TrainingSettings

Scalar = str | int | float


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
    privacy: PrivacySettings = PrivacySettings()
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
        if self.rounds.is_buffered:
            self._fits_buffers()
        rising = self.training.lr_warmup
        if rising >= self.rounds.num_rounds:
            raise SettingsError(
                f"lr-warmup = {rising} is not allowed: fewer than num-rounds = "
                f"{self.rounds.num_rounds}"
            )
        if self.data.task:
            self._fits_own_data()
        if self.privacy.is_central:
            self._fits_privacy()
        if self.privacy.is_device:
            self._fits_device_privacy()
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

    def _fits_device_privacy(self) -> None:
        """Refuse what would have one sample in the gradients of others."""
        for key, value, usual, why in (
            (
                "gate-balance",
                self.model.gate_balance,
                0,
                "it is of a whole batch, not of its samples; set it to 0",
            ),
            (
                "norm",
                self.model.norm,
                "group",
                "a batch norm mixes the samples of a batch",
            ),
            (
                "loss-calibration",
                self.skew.loss_calibration,
                0,
                "the labels of all samples would be in the loss of each",
            ),
            ("precision", self.training.precision, "float32", "sums have to be exact"),
            (
                "sampling-rate",
                self.privacy.sampling_rate,
                0,
                "each device draws samples, by batch-size",
            ),
            (
                "drift",
                self.stress.drift,
                0,
                "a sample would be another device's as well",
            ),
            (
                "client-metrics",
                self.run.client_metrics if self.privacy.leaves_out else "",
                "",
                'private-reports = "leave-out" leaves them out',
            ),
        ):
            if value != usual:
                raise SettingsError(
                    f"{key} = {value!r} is not allowed with privacy = 'device': {why}"
                )

    def _fits_buffers(self) -> None:
        """Refuse what is said of rounds whose replies are merged together."""
        rounds = self.rounds
        for key, value, usual in (
            ("min-replies", rounds.min_replies, 1),
            ("over-selection", rounds.over_selection, 0),
        ):
            if value != usual:
                raise SettingsError(
                    f"{key} = {value} is not allowed with schedule = 'buffered': "
                    "buffer-share says how many replies a round and a part wait for"
                )

    def _fits_privacy(self) -> None:
        """Refuse what epsilon would not hold with, or what needs reports."""
        rules, rounds = self.privacy, self.rounds
        refused: list[tuple[str, Scalar, Scalar, str]] = [
            ("merging", self.merge.merging, "mean", "noise is of a sum's size"),
            (
                "over-selection",
                rounds.over_selection,
                0,
                "whose reply counts would hang on others",
            ),
            (
                "late-replies",
                rounds.late_replies,
                "drop",
                "noise and holders are those that one round was planned for",
            ),
            (
                "schedule",
                rounds.schedule,
                "synchronous",
                "noise and holders are those that one round was planned for",
            ),
            (
                "replay-arrivals",
                self.run.replay_arrivals,
                "",
                "its noise is kept nowhere",
            ),
            (
                "drift",
                self.stress.drift,
                0,
                "a client's samples would count as another's as well",
            ),
            (
                "fitness-from",
                self.assignment.fitness_from,
                "clients",
                "the server would measure updates before noise is added",
            ),
            (
                "min-holders",
                self.assignment.min_holders,
                1,
                "what is merged would hang on who replied",
            ),
        ]
        if rules.leaves_out:
            silent = 'private-reports = "leave-out" leaves out'
            refused += [
                (
                    "train-seconds",
                    rounds.train_seconds,
                    0,
                    f"{silent} how many samples a device has",
                ),
                (
                    "client-metrics",
                    self.run.client_metrics,
                    "",
                    f"{silent} what devices measure",
                ),
            ]
        if rules.is_sampled:
            refused += [
                (
                    "clients-per-round",
                    rounds.clients_per_round,
                    0,
                    "sampling-rate says who is asked",
                ),
                (
                    "upload-seconds",
                    rounds.upload_seconds,
                    0,
                    "a link is known of who was asked",
                ),
                (
                    "private-reports",
                    rules.private_reports,
                    "leave-out",
                    "with sampling-rate, what is learnt from reports would say who was "
                    "asked",
                ),
            ]
        for key, value, usual, why in refused:
            if value != usual:
                raise SettingsError(
                    f"{key} = {value!r} is not allowed with privacy = "
                    f"{rules.privacy!r}: {why}"
                )

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
