"""The groups of settings: every key, its type, its range and what it means.

How the flat ``run-config`` becomes this tree, and how an error is told, is in
``common.config``.
"""

import difflib
import tomllib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from common.capacity_tiers import CapacityTiers


class SettingsError(ValueError):
    """A setting the user gave cannot be used; the message is one readable line."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest valid name, or ``""``."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


class Section(BaseModel):
    """A frozen group of settings; keys are the kebab-case form of the field names."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        alias_generator=lambda name: name.replace("_", "-"),
        validate_by_name=True,
    )


class DataSettings(Section):
    """Which samples there are and who has them."""

    dataset: str = Field(
        "digits",
        description="digits, cifar10, emnist, gtsrb, fashion_mnist, reviews, sent140 "
        "or NAME",
    )
    data_dir: str = Field(
        "data",
        description="directory searched for <dataset>.npz, .jsonl or .jsonl.gz before "
        "a download",
    )
    text_length: int = Field(
        64, ge=1, le=4096, description="tokens of a text that are looked at, 1 to 4096"
    )
    vocabulary: int = Field(
        4096, ge=16, le=2**20, description="token ids that texts become, 16 to 1048576"
    )
    partition: str = Field(
        "dirichlet:0.3", description="iid, dirichlet:ALPHA, classes:N or natural"
    )
    held_out: float = Field(
        0.2, gt=0, lt=1, description="share of a client's samples kept for its own test"
    )
    train_samples: int = Field(
        0, ge=0, description="training samples used of the data set; 0 means all"
    )
    test_samples: int = Field(
        2000, ge=0, description="global test samples used for evaluation; 0 means all"
    )
    reserved_samples: int = Field(
        0, ge=0, description="samples the server keeps for itself, cut before clients"
    )

    @field_validator("partition")
    @classmethod
    def _known_partition(cls, value: str) -> str:
        from common.data import parse_partition

        parse_partition(value)
        return value


class TrainingSettings(Section):
    """What a client does with what it is given (METHODS 1, defaults)."""

    local_epochs: int = Field(2, ge=1, description="local epochs R a round")
    lr: float = Field(0.05, gt=0, description="learning rate of SGD, above 0")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD, 0 to <1")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay, at least 0")
    batch_size: int = Field(16, ge=1, description="samples in a batch, at least 1")
    threads: int = Field(
        1, ge=1, le=256, description="torch threads of one client, 1 to 256"
    )
    device: Literal["cpu", "cuda", "auto"] = Field(
        "cpu", description="where to compute; auto means a GPU if there is one"
    )


class RoundSettings(Section):
    """How many rounds there are and who takes part in one."""

    num_rounds: int = Field(30, ge=1, description="rounds of training, an integer >= 1")
    clients_per_round: int = Field(
        0, ge=0, description="clients asked each round; 0 means all"
    )
    expert_capacity: Annotated[CapacityTiers, BeforeValidator(CapacityTiers.parse)] = (
        Field(
            CapacityTiers.parse(2),
            description="experts of each layer per client: an integer or tiers "
            '"1:0.5,2:0.3,4:0.2"',
        )
    )
    eval_every: int = Field(
        1, ge=1, description="evaluate every N rounds (the last one always)"
    )
    round_deadline: float = Field(
        3600.0, gt=0, description="seconds a round waits for replies, above 0"
    )
    min_replies: int = Field(
        1, ge=1, description="replies a round needs to be merged, at least 1"
    )
    over_selection: float = Field(
        0.0, ge=0, le=1, description="share of clients asked beyond clients-per-round"
    )
    short_round: Literal["repeat", "skip"] = Field(
        "repeat", description="what happens to a round with too few replies"
    )
    capacity_margin: float = Field(
        0.1, ge=0, lt=1, description="share of a device's means left unused, 0 to <1"
    )
    train_seconds: float = Field(
        0.0, ge=0, description="seconds a device may train in a round; 0 = no limit"
    )
    upload_seconds: float = Field(
        0.0, ge=0, description="seconds a device may upload in a round; 0 = no limit"
    )
    set_aside_after: int = Field(
        5, ge=2, description="failures in a row after which a client is only probed"
    )


class AssignmentSettings(Section):
    """Fitness, load bounds and the solver (METHODS 1)."""

    fitness: Literal["accuracy", "loss"] = Field(
        "accuracy", description="what the fitness of a pair is scored by"
    )
    fitness_rate: float = Field(
        0.3, gt=0, le=1, description="beta, the weight of the newest score, 0< to 1"
    )
    fitness_loss_scale: float = Field(
        1.0, gt=0, description="alpha_L in exp(-alpha_L loss), above 0"
    )
    load_tolerance: float = Field(
        0.1, ge=0, le=1, description="delta, width of the load band, 0 to 1"
    )
    deficit_decay: float = Field(
        1.0, ge=0, le=1, description="gamma, memory of the load deficit, 0 to 1"
    )
    deficit_gain: float = Field(
        1.0, ge=0, description="alpha_adj, how strongly a deficit is repaid; 0 = never"
    )
    switching_cost: float = Field(
        0.0, ge=0, description="fitness an expert new to a client must gain, at least 0"
    )
    solver: Literal["auto", "cp-sat", "flow"] = Field(
        "auto", description="assignment solver"
    )
    solver_time_limit: float = Field(
        10.0, gt=0, description="seconds one assignment may take, above 0"
    )


class WireSettings(Section):
    """What travels, and in how many bytes; the gate is never quantised."""

    download_dtype: Literal["float32", "float16", "int8"] = Field(
        "float32", description="number format of the parts sent to clients"
    )
    upload_dtype: Literal["float32", "float16", "int8"] = Field(
        "float32", description="number format of the deltas clients send back"
    )
    expert_cache: bool = Field(
        False, description="clients keep what they were sent; it is not sent again"
    )


class MergeSettings(Section):
    """How replies become the next model, and what is refused."""

    merging: Literal["mean", "clipped", "trimmed-mean", "median"] = Field(
        "mean", description="rule that merges the deltas of a part over its holders"
    )
    expert_weighting: Literal["usage", "samples"] = Field(
        "usage", description="what an expert's updates are weighted by"
    )
    clip_norm: float = Field(
        1.0, gt=0, description="largest norm of a part's delta if merging is clipped"
    )
    trim_share: float = Field(
        0.2, ge=0, lt=0.5, description="share cut at each end if merging is trimmed"
    )
    max_update: float = Field(
        10.0, gt=0, description="largest RMS change of a part that is accepted"
    )


class StressSettings(Section):
    """What goes wrong on purpose, for studies (METHODS 2, named stress tests)."""

    drop_out: float = Field(
        0.0, ge=0, lt=1, description="chance that a client fails a round, 0 to <1"
    )
    capacity_error: float = Field(
        0.0, ge=0, lt=1, description="relative error of reported capacities, 0 to <1"
    )
    drift: float = Field(
        0.0, ge=0, le=1, description="share of its data a client hands on per round"
    )


class RunSettings(Section):
    """The algorithm, the seed and where things are written."""

    strategy: str = Field(
        "flex-moe", description="a name, an entry point, module:Class or flwr:Class"
    )
    strategy_options: str = Field(
        "", description='options of the strategy as TOML pairs, "mu=0.01, decay=0.9"'
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of everything, 0 to 2^32-1")
    output_dir: str = Field("results", description="directory the run is written to")
    state_dir: str = Field(
        "", description="client directory for its private gate; empty means in memory"
    )
    resume_from: str = Field(
        "", description="directory of a run to go on with; empty starts a new one"
    )
    keep_checkpoints: int = Field(
        3, ge=1, description="checkpoints kept of a run, at least 1"
    )
    sinks: str = Field(
        "", description="where scalars go as well: tensorboard, mlflow, wandb"
    )

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
