"""The contract between server and device: typed orders and reports as Flower records.

This is the only place that names record keys. A message carries one ArrayRecord with
one flat vector per part (``extractor``, ``expert.3``, ...) and one record of scalars
that a pydantic model describes and validates on arrival: an unknown version, key,
type or range is refused with a reason before anything is used. What a reply may
contain given the order it answers is checked by :func:`check_report`.

Nothing here decides anything, and no part named ``gate`` is ever packed unless the
order's gate is shared.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.moe.layer import Mixes
from common.moe.model import EXTRACTOR, GATE, Vector, expert_id, expert_part

PROTOCOL: Literal[1] = 1

# Flower's own strategies look for exactly one ArrayRecord and one MetricRecord.
ARRAYS, ORDER, REPORT, METRICS = "arrays", "order", "report", "metrics"
NUM_EXAMPLES, TRAIN_LOSS = "num-examples", "train-loss"

Count = Annotated[int, Field(ge=0, lt=2**53)]
Share = Annotated[float, Field(ge=0, le=1)]
Loss = Annotated[float, Field(ge=0, lt=float("inf"))]
Seconds = Annotated[float, Field(ge=0, lt=float("inf"))]


class WireError(ValueError):
    """A message breaks the contract; the text says how, in one line."""


class Payload(BaseModel):
    """Scalars of a message: frozen, strict, nothing unknown."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        alias_generator=lambda name: name.replace("_", "-"),
        validate_by_name=True,
    )

    protocol: Literal[1] = PROTOCOL

    def to_record(self) -> ConfigRecord:
        """Return the fields as a ConfigRecord; None means left out."""
        return ConfigRecord(self.model_dump(by_alias=True, exclude_none=True))

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> Self:
        """Read the fields back.

        Raises
        ------
        WireError
            Naming every key that is wrong.
        """
        try:
            return cls.model_validate(dict(record))
        except ValidationError as error:
            problems = (
                f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
                for item in error.errors(include_input=False, include_url=False)
            )
            raise WireError(f"{cls.__name__}: {'; '.join(problems)}") from None


class TrainOrder(Payload):
    """What a client is asked to do in one round, beside the parts it is sent.

    Attributes
    ----------
    run : str
        Name of the run, kept across resumes; the private gate is stored under it.
    attempt : int
        How often this round was tried before; its earlier results were dropped.
    experts : list of int
        Sorted global ids of the experts shipped to this client.
    num_experts, top_k : int
        Experts in the whole mixture (the gate is that wide), and how many held ones
        a sample is routed to (0: all).
    gate : {"private", "shared", "none"}
        ``private`` never leaves the client, ``shared`` travels both ways, ``none`` is
        a dense model with nothing to route.
    train, evaluate : bool
        Whether to train, and whether to evaluate what was trained.
    report_gate, report_information : bool
        Whether the reply states gate mass and responsibilities, and what the gate's
        choice says about inputs and labels (HFedMoE).
    width : float
        Share of the hidden channels of the sub-model that was sent (FedRolex).
    common_gate : bool
        Whether a frozen network for the gate is part of the model (FedJETs).
    mixes : {"logits", "probabilities"}
        What the gate's weights are applied to; ``probabilities`` makes the local loss
        the likelihood of the mixture (FedMix).
    proximal, gate_entropy, gate_supervision : float
        Extra terms of the local objective: mu/2 ||w - w_t||^2 (FedProx), the weight of
        the gate's entropy (FedMix; negative rewards a spread gate), and the weight of
        -log of the gate's mass on the experts sent (anchors of FedJETs).
    """

    run: Annotated[str, Field(pattern=r"^[\w.-]{1,100}$")]
    server_round: Count
    attempt: Count = 0
    experts: list[Count]
    num_experts: Annotated[int, Field(ge=1)]
    top_k: Count
    gate: Literal["private", "shared", "none"] = "private"
    train: bool = True
    evaluate: bool = False
    report_gate: bool = False
    report_information: bool = False
    width: Annotated[float, Field(gt=0, le=1)] = 1.0
    common_gate: bool = False
    mixes: Mixes = "logits"
    proximal: Annotated[float, Field(ge=0)] = 0.0
    gate_entropy: float = 0.0
    gate_supervision: Annotated[float, Field(ge=0)] = 0.0

    def returned_parts(self) -> list[str]:
        """Names of the parts a correct reply to this order carries."""
        if not self.train:
            return []
        shared = [GATE] if self.gate == "shared" else []
        return [EXTRACTOR, *map(expert_part, self.experts), *shared]


class TrainReport(Payload):
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
        u_{c,e}, a_{c,e} and l_{c,e} of METHODS 1 over the last local epoch; accuracy
        and loss are 0 where no sample was routed.
    gate_mass : list of float, shape (num_experts,)
        Mean gate probability of every expert, held or not, over the last local
        epoch; empty unless the order asks for it.
    responsibility : list of float, one entry per ordered expert
        Mean posterior probability of the expert given input and label (FedMix);
        empty unless the order asks for it.
    input_information, label_information : list of float, shape (num_experts,)
        Each expert's share, in nats, of what the gate's choice says about the input
        and about the label; empty unless the order asks for them.
    train_loss : float
        Mean loss over the last local epoch.
    client_global, client_local : float or None
        Accuracy after local training on the global test set and on the client's own
        held-out samples; None where not evaluated.
    seconds_train, seconds_total : float
        Time spent in local training, and in answering the order as a whole.
    memory_bytes, expert_cap : int
        What the device can hold now, as in :class:`QueryReply`.
    """

    server_round: Count
    client: Annotated[str, Field(min_length=1, max_length=200)]
    code_hash: str
    num_examples: Annotated[int, Field(ge=0, lt=2**53)]
    expert_samples: list[Count]
    expert_accuracy: list[Share]
    expert_loss: list[Loss]
    gate_mass: list[Share] = []
    responsibility: list[Share] = []
    input_information: list[Loss] = []
    label_information: list[Loss] = []
    train_loss: Loss = 0.0
    client_global: Share | None = None
    client_local: Share | None = None
    seconds_train: Seconds = 0.0
    seconds_total: Seconds = 0.0
    memory_bytes: Count = 0
    expert_cap: Count = 0


class QueryReply(Payload):
    """Who a client is and what it can hold; answers the ``query`` message.

    Attributes
    ----------
    partition_id, num_partitions : int
        Which share of the data it has; -1 and 0 for a device with data of its own.
    memory_bytes : int
        Memory this process may use, cgroup limits first; 0 if unknown.
    expert_cap : int
        Experts the owner allows this device to hold; 0 if not declared.
    flops_per_second, uplink : float
        Training speed, and upload speed in bytes per second; 0 if unknown.
    """

    client: Annotated[str, Field(min_length=1, max_length=200)]
    partition_id: int
    num_partitions: int
    num_examples: Count
    code_hash: str
    partition_hash: str
    memory_bytes: Count = 0
    cores: Annotated[int, Field(ge=1)] = 1
    expert_cap: Count = 0
    flops_per_second: Annotated[float, Field(ge=0)] = 0.0
    uplink: Annotated[float, Field(ge=0)] = 0.0


def pack_array(vector: Vector) -> Array:
    """Wrap one part; do it once a round and share the object between messages."""
    return Array(vector)


def encode_order(order: TrainOrder, arrays: Mapping[str, Array]) -> RecordDict:
    """Build the content of one train message from an order and its packed parts."""
    return RecordDict({ARRAYS: ArrayRecord(dict(arrays)), ORDER: order.to_record()})


def is_order(content: RecordDict) -> bool:
    """Whether a message is ours; Flower's own strategies send no order record."""
    return ORDER in content.config_records


def decode_order(content: RecordDict) -> tuple[TrainOrder, dict[str, Vector]]:
    """Read a train message on the device; raises WireError if it is malformed."""
    if not is_order(content):
        raise WireError("the message carries no order record")
    order = TrainOrder.from_record(content.config_records[ORDER])
    return order, decode_arrays(content)


def encode_report(report: TrainReport, deltas: Mapping[str, Vector]) -> RecordDict:
    """Build the content of a train reply."""
    metrics: dict[str, int | float | list[int] | list[float]] = {
        NUM_EXAMPLES: report.num_examples
    }
    return RecordDict(
        {
            ARRAYS: ArrayRecord({name: Array(value) for name, value in deltas.items()}),
            METRICS: MetricRecord(metrics),
            REPORT: report.to_record(),
        }
    )


def decode_report(content: RecordDict) -> tuple[TrainReport, dict[str, Vector]]:
    """Read a train reply on the server; raises WireError if it is malformed."""
    if REPORT not in content.config_records:
        raise WireError("the reply carries no report record")
    report = TrainReport.from_record(content.config_records[REPORT])
    return report, decode_arrays(content)


def encode_query_reply(reply: QueryReply) -> RecordDict:
    """Build the content of a query reply."""
    return RecordDict({REPORT: reply.to_record()})


def decode_query_reply(content: RecordDict) -> QueryReply:
    """Read a query reply; raises WireError if it is malformed."""
    if REPORT not in content.config_records:
        raise WireError("the reply carries no report record")
    return QueryReply.from_record(content.config_records[REPORT])


def encode_flower_reply(
    vectors: Mapping[str, Vector], metrics: dict[str, int | float]
) -> RecordDict:
    """Build the reply Flower's own strategies expect: full weights and metrics."""
    content = RecordDict({METRICS: MetricRecord({**metrics})})
    if vectors:
        content[ARRAYS] = ArrayRecord({k: Array(v) for k, v in vectors.items()})
    return content


def flower_config(content: RecordDict) -> tuple[int, float]:
    """Return the round and FedProx's mu from a message of Flower's own strategies."""
    values: dict[str, object] = {}
    for record in content.config_records.values():
        values |= record
    server_round, mu = values.get("server-round", 0), values.get("proximal-mu", 0.0)
    if not isinstance(server_round, int) or not isinstance(mu, int | float):
        raise WireError("server-round and proximal-mu must be numbers")
    return server_round, float(mu)


# What numpy.save writes before a flat little-endian float vector, any version of
# NumPy. Matched by hand because numpy.load evaluates the header of untrusted bytes, and
# a malformed one raises from deep inside Python's tokenizer.
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00(..)"
    rb"(\{'descr': '<f([48])', 'fortran_order': False, "
    rb"'shape': \((\d{1,12}),\), \} *\n)",
    re.DOTALL,
)


def _flat_vector(name: str, array: Array, dtypes: Mapping[str, int]) -> Vector:
    if array.dtype not in dtypes or len(array.shape) != 1:
        raise WireError(
            f"array {name!r} is {array.dtype}{list(array.shape)}, expected a flat "
            "float32 vector"
        )
    header = _NPY.match(array.data)
    if header is None or array.stype != "numpy.ndarray":
        raise WireError(f"array {name!r} cannot be read: no flat float32 .npy data")
    length = int.from_bytes(header[1], "little")
    width, size = int(header[3]), int(header[4])
    values = memoryview(array.data)[header.end() :]
    if (
        length != len(header[2])
        or width != dtypes[array.dtype]
        or len(values) != width * size
        or array.shape != (size,)
    ):
        raise WireError(f"array {name!r} cannot be read: it is not what it says it is")
    return np.frombuffer(values, dtype=f"<f{width}").astype(np.float32)


def decode_arrays(
    content: RecordDict, *, from_flower: bool = False
) -> dict[str, Vector]:
    """Return the part vectors of a message.

    Parameters
    ----------
    from_flower : bool
        Whether float64 is rounded instead of refused: several of Flower's own
        strategies send what they computed in it.

    Raises
    ------
    WireError
        If an array is not a flat float32 vector.
    """
    vectors: dict[str, Vector] = {}
    dtypes = {"float32": 4, "float64": 8} if from_flower else {"float32": 4}
    for record in content.array_records.values():
        for name, array in record.items():
            vectors[name] = _flat_vector(name, array, dtypes)
    return vectors


def check_report(
    order: TrainOrder,
    report: TrainReport,
    deltas: Mapping[str, Vector],
    sizes: Mapping[str, int],
) -> None:
    """Check a reply against the order it answers; nothing that fails is merged.

    Parameters
    ----------
    sizes : mapping of str to int
        Length of every part's vector as it was shipped to this client.

    Raises
    ------
    WireError
        Wrong round, wrong parts, wrong length, NaN or infinity, or per-expert lists
        and counts that do not fit the order.
    """
    if report.server_round != order.server_round:
        raise WireError(
            f"reply is for round {report.server_round}, not {order.server_round}"
        )
    expected = set(order.returned_parts())
    if set(deltas) != expected:
        extra, missing = set(deltas) - expected, expected - set(deltas)
        strangers = [name for name in extra if expert_id(name) is not None]
        raise WireError(
            f"parts never assigned: {sorted(strangers)}"
            if strangers
            else f"wrong parts: unexpected {sorted(extra)}, missing {sorted(missing)}"
        )
    for name, delta in deltas.items():
        if delta.size != sizes[name]:
            raise WireError(f"{name} has {delta.size} values, expected {sizes[name]}")
        if not np.isfinite(delta).all():
            raise WireError(f"{name} contains NaN or infinity")
    for field in ("expert_samples", "expert_accuracy", "expert_loss"):
        if len(getattr(report, field)) != len(order.experts):
            raise WireError(f"{field} must have one entry per ordered expert")
    everyone, held = order.num_experts, len(order.experts)
    for field, entries, asked in (
        ("gate_mass", everyone, order.report_gate),
        ("responsibility", held, order.report_gate),
        ("input_information", everyone, order.report_information),
        ("label_information", everyone, order.report_information),
    ):
        # A strategy that asked relies on it; unasked, it is more than was wanted.
        if len(getattr(report, field)) != (entries if asked and order.train else 0):
            raise WireError(f"{field} must have {entries} entries if asked, else none")
    if order.train and report.num_examples == 0:
        raise WireError("a training reply must come from at least one example")
    most = report.num_examples * max(1, len(order.experts))
    if sum(report.expert_samples) > most:
        raise WireError(
            f"expert_samples sum to {sum(report.expert_samples)}, at most {most} are "
            "possible"
        )


def message_bytes(message: Message) -> int:
    """Return the payload bytes of a message: its arrays plus its scalar records.

    Counted from the message itself; Flower's envelope (ids, signatures) is not in it.
    """
    if not message.has_content():
        return 0
    total = 0
    for record in message.content.values():
        if isinstance(record, ArrayRecord):
            total += sum(len(array.data) for array in record.values())
        else:
            total += len(record.deflate())
    return total
