"""The groups of settings: every key, its type, its range and what it means.

Those of the run, of rounds, of the model and of training have modules of their own. How
the flat ``run-config`` becomes this tree, and how an error is told, is in
``common.settings``.
"""

from pathlib import PurePath
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from common.errors import SettingsError
from common.registry import READERS
from common.settings.section import Section, named


def data_label(task: str, dataset: str) -> str:
    """Return the name of a task's file without its ending, or of the data set.

    A file that is called ``task.toml``, as most are, goes by the name of its folder.
    """
    path = PurePath(task)
    folder = path.parent.name if path.stem == "task" else ""
    return (folder or path.stem) if task else dataset


class DataSettings(Section):
    """Which samples there are and who has them."""

    dataset: str = Field(
        "digits",
        description="digits, cifar10, emnist, gtsrb, fashion_mnist, reviews, sent140 "
        "or NAME",
    )
    data_dir: str = Field(
        "data",
        min_length=1,
        description="directory searched for <dataset>.npz, .jsonl or .jsonl.gz before "
        "a download",
    )
    task: str = Field(
        "",
        description="TOML file with kind, classes and shape of the samples, where "
        "every device has data of its own; empty: what the data set says",
    )
    test_data: str = Field(
        "",
        description="with task: the server's own test set, a file or directory as "
        "devices have theirs; empty: none",
    )
    private_counts: bool = Field(
        False,
        description="devices with data of their own do not tell how many samples of "
        "each class they have",
    )
    statistic_noise: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Gaussian noise on the class means that strategy kin asks for, in "
        "standard deviations of a sample within its class, 0 to 100",
    )
    reader: Annotated[str, named(READERS, or_none=True)] = Field(
        "",
        description="what reads the file or directory <dataset>: npz, jsonl, jsonl.gz "
        "or module:attr; empty: by the ending of the file",
    )
    text_length: int = Field(
        64, ge=1, le=4096, description="tokens of a text that are looked at, 1 to 4096"
    )
    vocabulary: int = Field(
        4096, ge=16, le=2**20, description="token ids that texts become, 16 to 1048576"
    )
    partition: str = Field(
        "dirichlet:0.3",
        description="iid, dirichlet:ALPHA, classes:N, natural, folders (with task) or "
        "module:attr; before it, with +, rotation:G, photometric:G, concept:G",
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

    @property
    def label(self) -> str:
        """What the samples are called where a run is named."""
        return data_label(self.task, self.dataset)

    @field_validator("partition")
    @classmethod
    def _known_partition(cls, value: str) -> str:
        from common.data import FOLDERS, parse_partition

        if value != FOLDERS:
            parse_partition(value)
        return value

    @model_validator(mode="after")
    def _goes_with_the_task(self) -> Self:
        from common.data import FOLDERS, parse_partition

        own = self.task and self.partition != FOLDERS
        if own and parse_partition(self.partition).factors:
            raise SettingsError(
                f"partition = {self.partition!r} is not allowed with task: devices "
                "with data of their own differ as they do"
            )
        if self.partition == FOLDERS and not self.task:
            raise SettingsError(
                "partition = 'folders' is not allowed without task: folders of clients "
                "do not say which classes there are"
            )
        if self.test_data and not self.task:
            raise SettingsError(
                f"test-data = {self.test_data!r} is not allowed without task: a data "
                "set has its own test samples"
            )
        return self


class AssignmentSettings(Section):
    """Fitness, load bounds and the solver (docs/methods.md, 1)."""

    fitness: str = Field(
        "accuracy",
        description="what the fitness of a pair is scored by: accuracy, loss or "
        "module:attr",
    )
    fitness_rate: float = Field(
        0.3, gt=0, le=1, description="beta, the weight of the newest score, 0< to 1"
    )
    fitness_loss_scale: float = Field(
        1.0, gt=0, description="alpha_L in exp(-alpha_L loss), above 0"
    )
    idle_fitness: Literal["chance", "frozen"] = Field(
        "chance",
        description="what a held pair without a sample scores: as guessing, or nothing",
    )
    fitness_from: Literal["clients", "server"] = Field(
        "clients",
        description="who says how an expert does at a client, for flex-moe: the "
        "client, or the server on its reserved-samples",
    )
    expert_choice: Literal["auto", "fitness", "chance"] = Field(
        "auto",
        description="what chooses within the load band, for flex-moe: fitness, chance, "
        "or chance only where merging is trimmed-mean or median",
    )
    min_holders: int = Field(
        1,
        ge=1,
        description="holders below which an expert is not merged, nor given to anybody "
        "by flex-moe, at least 1",
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
        0.0,
        ge=0,
        le=1000,
        description="fitness an expert new to a client must gain, 0 to 1000",
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

    merging: str = Field(
        "mean",
        description="rule that merges the deltas of a part over its holders: mean, "
        "clipped, trimmed-mean, median or module:attr",
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
    norm_bound: float = Field(
        10.0,
        ge=0,
        description="medians of the last rounds above which a change of a part is cut "
        "down to one, and refused above ten times that; 0 = no bound, else 1 or more",
    )
    max_weight: float = Field(
        10.0,
        ge=0,
        description="most that a client's samples count for, in medians of the round's "
        "participants; 0 = no bound, else 1 or more",
    )

    @property
    def is_robust(self) -> bool:
        """Whether its rule withstands any liar, if only there are holders enough."""
        return self.merging in ("trimmed-mean", "median")

    @field_validator("norm_bound", "max_weight")
    @classmethod
    def _is_bound(cls, value: float) -> float:
        if 0 < value < 1:
            raise ValueError("choose 0 for no bound, or 1 or more")
        return value


class SkewSettings(Section):
    """What helps where clients have other label mixes; any strategy takes it along.

    All are off by default: a strategy alone is what its paper says (docs/methods.md,
    5).
    """

    client_keep: float = Field(
        1.0,
        ge=0,
        le=1,
        description="share of its change a client keeps for its own use, 0 to 1",
    )
    label_prior: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="weight of a client's own label frequencies in what it predicts",
    )
    loss_calibration: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="weight of a client's own label frequencies in its training loss",
    )
    server_average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="memory of the server's average of its models, 0 to <1; 0 = none",
    )


class StressSettings(Section):
    """What goes wrong on purpose, for studies (docs/methods.md, 2)."""

    drop_out: float = Field(
        0.0, ge=0, lt=1, description="chance that a client fails a round, 0 to <1"
    )
    capacity_error: float = Field(
        0.0, ge=0, lt=1, description="relative error of reported capacities, 0 to <1"
    )
    drift: float = Field(
        0.0, ge=0, le=1, description="share of its data a client hands on per round"
    )
