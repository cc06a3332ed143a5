"""What a client answers: to an order, to one it cannot carry out, to a query."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from flwr.app import ConfigRecord
from pydantic import Field

from common.wire.payloads import (
    Amount,
    ClientName,
    Count,
    Covariance,
    Digest,
    Experts,
    Finite,
    Line,
    Loss,
    MetricName,
    Nats,
    Note,
    PartName,
    Payload,
    Projected,
    Rate,
    Samples,
    Seconds,
    Sentence,
    Share,
    Version,
)

MOST_COUNTS = 20_000
"""Numbers of :class:`common.class_counts.ClassCounts`, of any number of classes."""
Counts = Annotated[list[Samples], Field(max_length=MOST_COUNTS)]

MOST_PROJECTIONS = 128

_OWN = "metrics."


class OwnMetrics(Payload):
    """What a device measured of its own; part of :class:`TrainReport`.

    Attributes
    ----------
    metrics : dict of str to float
        At most 16 finite numbers (``client-metrics``). In the record each is a key of
        its own, ``metrics.NAME``.
    """

    metrics: Annotated[dict[MetricName, float], Field(max_length=16)] = {}

    def to_record(self) -> ConfigRecord:
        """Return the fields as a ConfigRecord, in which nothing is nested."""
        fields = self.model_dump(by_alias=True, exclude_none=True)
        own = fields.pop("metrics")
        return ConfigRecord({**fields, **{_OWN + k: v for k, v in own.items()}})

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> Self:
        """Read the fields back; raises WireError, naming every key that is wrong."""
        own = {k.removeprefix(_OWN): v for k, v in record.items() if k.startswith(_OWN)}
        rest = {k: v for k, v in record.items() if not k.startswith(_OWN)}
        return super().from_record({"metrics": own, **rest})


class TrainReport(OwnMetrics):
    """What a client says about its round; the deltas travel beside it.

    Attributes
    ----------
    client : str
        The client's own stable name; node ids change from run to run.
    code_hash : str
        Hash of the code the client ran (``common.code_hash``).
    num_examples : int
        Local training samples n_c.
    expert_samples, expert_accuracy, expert_loss : list, one entry per ordered expert
        u_{c,e}, a_{c,e} and l_{c,e} (docs/methods.md, 1) over the last local epoch;
        accuracy and loss are 0 where no sample was routed. Inside an encoder u counts
        tokens, a and l are the whole model's on the texts they are of.
    gate_mass : list of float, one entry per expert of every layer
        Mean gate probability of every expert, held or not, over the last local
        epoch; empty unless the order asks for it.
    responsibility : list of float, one entry per ordered expert
        Mean posterior probability of the expert given input and label (FedMix);
        empty unless the order asks for it.
    input_information, label_information : list of float, likewise
        Each expert's share, in nats, of what the gate's choice says about the input
        and about the label; empty unless the order asks for them.
    train_loss : float
        Mean loss over the last local epoch.
    candidate : int
        Which of the ``candidates`` sent it is about.
    client_global, client_local : float or None
        Accuracy after local training on the global test set and on the client's own
        held-out samples; None where not evaluated, or without such samples.
    local_counts : list of int
        What ``client_local`` is the accuracy of, class by class
        (:class:`common.class_counts.ClassCounts`); empty where that is None.
    seconds_train, seconds_total : float
        Time spent in local training, and in answering the order as a whole.
    memory_bytes, memory_available, expert_cap : int
        What the device can hold now, as in :class:`QueryReply`.
    memory_peak : int or None
        Most memory the device's process has had; None for a virtual client.
    holds : list of str
        Versions of the parts in the device's cache (with ``expert-cache``).
    warnings : list of str
        What is not as it should be on the device, and did not stop it.
    """

    server_round: Count
    client: ClientName
    code_hash: Digest
    num_examples: Samples
    expert_samples: list[Count]
    expert_accuracy: list[Share]
    expert_loss: list[Loss]
    gate_mass: list[Share] = []
    responsibility: list[Share] = []
    input_information: list[Nats] = []
    label_information: list[Nats] = []
    train_loss: Loss = 0.0
    candidate: Count = 0
    client_global: Share | None = None
    client_local: Share | None = None
    local_counts: Counts = []
    seconds_train: Seconds = 0.0
    seconds_total: Seconds = 0.0
    memory_bytes: Count = 0
    memory_available: Count | None = None
    memory_peak: Count | None = None
    expert_cap: Experts = 0
    holds: list[Version] = []
    warnings: Annotated[list[Line], Field(max_length=8)] = []


class MissingParts(Payload):
    """A client's answer when it has lost a part it was to take from its cache.

    It trained nothing; the server sends it everything.

    Attributes
    ----------
    parts : list of str
        What was not there, or not in the version ordered.
    base_kept : int
        Where the base is missing, bytes of it that are kept.
    """

    server_round: Count
    client: ClientName
    parts: Annotated[list[PartName], Field(min_length=1)]
    base_kept: Count = 0


class Query(Payload):
    """What the ``query`` message asks with.

    Attributes
    ----------
    task : str
        The task (:mod:`common.task`) as JSON.
    data_hash : str
        Of the data set the server has (``common.data.fingerprint``); "" if it has none
        and every device has data of its own.
    statistic_seed : int or None
        Of the projections of the samples that it shall say class means of
        (:class:`ClassStatistic`); None where they are of no use.
    projections : int
        How many, q.
    base : str or None
        Version of the frozen base it will need; None for none.
    """

    task: str
    data_hash: Digest = ""
    base: Version | None = None
    statistic_seed: Count | None = None
    projections: Annotated[int, Field(ge=0, le=MOST_PROJECTIONS)] = 0


class ClassStatistic(Payload):
    """Class means of a client's projected samples; part of :class:`QueryReply`.

    All are empty unless asked for. How they are computed, and what the settings
    ``statistic-noise`` and ``private-counts`` do to them, is in
    ``client_app.class_statistic``.

    Attributes
    ----------
    statistic_means : list of float, K * q entries
        Class by class; 0 where it says nothing of a class.
    statistic_counts : list of int, K entries
        Samples behind each mean.
    statistic_covariance : list of float, q * (q + 1) / 2 entries
        Within classes, a sample's: the upper triangle, row by row.
    """

    statistic_means: Annotated[list[Projected], Field(max_length=MOST_COUNTS)] = []
    statistic_counts: Annotated[list[Samples], Field(max_length=MOST_COUNTS)] = []
    statistic_covariance: Annotated[
        list[Covariance], Field(max_length=MOST_COUNTS)
    ] = []


class Refusal(Payload):
    """A client's answer to a query when it cannot take part.

    Attributes
    ----------
    client : str
        Its name; "" where its configuration says none that can be used.
    reason : str
        What is wrong with its data or its settings, and what to do about it.
    """

    client: Literal[""] | ClientName
    reason: Sentence


class QueryReply(ClassStatistic):
    """Who a client is and what it can hold; answers the ``query`` message.

    Attributes
    ----------
    partition_id, num_partitions : int
        Which share of the data it has; -1 and 0 for a device with data of its own.
    task_hash : str
        Of the task as the client understood it.
    rows, unreadable : int
        Samples it can use, held-out ones included, and files or rows it cannot.
    data_format : str
        What its own data are read from.
    per_class : list of int
        Samples to train on of every class; with ``private-counts`` only how many there
        are at least: 10, 100, 1000, ..., and 0 for fewer than ten.
    moments_count, moments_mean, moments_m2, moments_least, moments_most : list
        Of its own training samples, per channel or column
        (:class:`common.task.Moments`).
    warnings : list of str
        What is not as it should be with its data.
    data_hash, test_hash : str
        What is in the data set the client sees (``common.data.fingerprint``). Of data
        of its own: samples and labels, and those put aside for testing, "" for none.
    test_samples_hash : str
        Of the latter without their labels (``common.own.marks``).
    checkpoint : str
        Fingerprint of the configuration and the tokeniser of a pretrained checkpoint.
    has_base : bool
        Whether it has the frozen base that was asked for.
    base_kept : int
        If not, bytes of it that are kept.
    memory_bytes : int
        Memory this process could ever have, cgroup limits first; 0 if unknown.
    memory_available, process_bytes : int or None
        Memory it could have now, and what it has already; None if unknown, as of every
        virtual client: what its machine has is not its own.
    cores : float
        Processors it may use.
    expert_cap : int
        Experts the owner allows this device to hold; 0 if not declared.
    flops_per_second, uplink, downlink : float
        Training speed, and that of its link up and down in bytes per second; 0 if
        unknown.
    seconds_total : float
        Time spent in answering.
    disk_free, board, temperature, throttled, gpu
        Bytes, model, degrees Celsius, whether the processor is slowed down, and GPUs;
        None if unknown.
    flwr : str
        The version of Flower on the device; "" of virtual clients, which have none.
    """

    client: ClientName
    partition_id: Annotated[int, Field(ge=-1, lt=2**53)]
    num_partitions: Count
    num_examples: Samples
    code_hash: Digest
    partition_hash: Digest
    task_hash: Digest = ""
    rows: Samples = 0
    unreadable: Samples = 0
    data_format: Note = ""
    per_class: list[Samples] = []
    moments_count: list[Amount] = []
    moments_mean: list[Finite] = []
    moments_m2: list[Amount] = []
    moments_least: list[Finite] = []
    moments_most: list[Finite] = []
    warnings: Annotated[list[Line], Field(max_length=8)] = []
    data_hash: Digest = ""
    test_hash: Digest = ""
    test_samples_hash: Digest = ""
    checkpoint: Digest = ""
    has_base: bool = False
    base_kept: Count = 0
    memory_bytes: Count = 0
    memory_available: Count | None = None
    process_bytes: Count | None = None
    cores: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    expert_cap: Experts = 0
    flops_per_second: Rate = 0.0
    uplink: Rate = 0.0
    downlink: Rate = 0.0
    seconds_total: Seconds = 0.0
    disk_free: Count | None = None
    board: Note | None = None
    temperature: Annotated[float, Field(ge=-1e6, le=1e6)] | None = None
    throttled: bool | None = None
    gpu: Note | None = None
    flwr: Note = ""

    @property
    def held_out(self) -> int:
        """Samples it keeps for its own measure."""
        return max(0, self.rows - self.num_examples)
