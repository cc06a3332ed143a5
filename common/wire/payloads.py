"""The scalars of every message, typed and validated on arrival.

An unknown version, key, type or range is refused with a reason before anything is
used. How they become Flower records is ``records``; whether a reply fits the order it
answers is ``checks``.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from flwr.app import ConfigRecord
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.moe.layer import Mixes
from common.moe.parts import EXTRACTOR, GATE, expert_part
from common.wire.codec import Dtype

PROTOCOL: Literal[2] = 2

Count = Annotated[int, Field(ge=0, lt=2**53)]
Share = Annotated[float, Field(ge=0, le=1)]
Loss = Annotated[float, Field(ge=0, lt=float("inf"))]
Seconds = Annotated[float, Field(ge=0, lt=float("inf"))]
PartName = Annotated[str, Field(pattern=r"^[\w.]{1,100}$")]
Version = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
"""Which values a part has: a hash of it as it travels, so equal means equal bits."""


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

    protocol: Literal[2] = PROTOCOL

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
        Experts in a layer of the whole mixture (its gate is that wide), and how many
        held ones of a layer a sample is routed to (0: all).
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
    download_dtype, upload_dtype : {"float32", "float16", "int8"}
        How the parts sent are encoded, and how the deltas shall be
        (:mod:`common.wire.codec`).
    merged_round : int
        Round of the client's last upload that was merged, 0 if none was: what that
        one left out by quantising belongs to this one.
    cached_parts, cached_versions : list of str
        Parts that are not sent because the client said it holds that version.
    base : str or None
        Version of the frozen checkpoint inside the model, which travels as the part
        ``base``; None for a model without.
    keep_share : float
        Share of its local change the client keeps in the model it uses itself; 1 keeps
        all of it. What it returns is the whole change.
    calibration : float
        Weight of the log of the client's own label frequencies in the training loss,
        so that the logits need not carry them; 0 adds nothing.
    label_prior : float
        Weight of the log of the client's own label frequencies in what it predicts for
        its own samples; 0 adds nothing.
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
    download_dtype: Dtype = "float32"
    upload_dtype: Dtype = "float32"
    merged_round: Count = 0
    cached_parts: list[str] = []
    cached_versions: list[Version] = []
    base: Version | None = None
    keep_share: Share = 1.0
    calibration: Annotated[float, Field(ge=0)] = 0.0
    label_prior: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _versions_match(self) -> Self:
        if len(self.cached_parts) != len(self.cached_versions):
            raise ValueError("cached-versions must have one entry per cached part")
        return self

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
        and loss are 0 where no sample was routed. Inside an encoder u counts tokens,
        a and l are the whole model's on the texts they are of.
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
    client_global, client_local : float or None
        Accuracy after local training on the global test set and on the client's own
        held-out samples; None where not evaluated.
    seconds_train, seconds_total : float
        Time spent in local training, and in answering the order as a whole.
    memory_bytes, memory_available, expert_cap : int
        What the device can hold now, as in :class:`QueryReply`.
    memory_peak : int or None
        Most memory the device's process has had; None for a virtual client.
    holds : list of str
        Versions of the parts in the device's cache (with ``expert-cache``) and of its
        frozen base.
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
    memory_available: Count | None = None
    memory_peak: Count | None = None
    expert_cap: Count = 0
    holds: list[Version] = []


class Lacks(Payload):
    """A client's answer when it has lost a part it was to take from its cache.

    It trained nothing; the server sends it everything.

    Attributes
    ----------
    parts : list of str
        What was not there, or not in the version ordered.
    """

    server_round: Count
    client: Annotated[str, Field(min_length=1, max_length=200)]
    parts: Annotated[list[PartName], Field(min_length=1)]


class QueryReply(Payload):
    """Who a client is and what it can hold; answers the ``query`` message.

    Attributes
    ----------
    partition_id, num_partitions : int
        Which share of the data it has; -1 and 0 for a device with data of its own.
    checkpoint : str
        Fingerprint of the configuration and the tokeniser of a pretrained checkpoint.
    memory_bytes : int
        Memory this process could ever have, cgroup limits first; 0 if unknown.
    memory_available, process_bytes : int or None
        Memory it could have now, and what it has already; None if unknown, as of every
        virtual client: what its machine has is not its own.
    cores : float
        Processors it may use.
    expert_cap : int
        Experts the owner allows this device to hold; 0 if not declared.
    flops_per_second, uplink : float
        Training speed, and upload speed in bytes per second; 0 if unknown.
    seconds_total : float
        Time spent in answering.
    disk_free, board, temperature, throttled, gpu
        Bytes, model, degrees Celsius, whether the processor is slowed down, and GPUs;
        None if unknown.
    """

    client: Annotated[str, Field(min_length=1, max_length=200)]
    partition_id: int
    num_partitions: int
    num_examples: Count
    code_hash: str
    partition_hash: str
    checkpoint: str = ""
    memory_bytes: Count = 0
    memory_available: Count | None = None
    process_bytes: Count | None = None
    cores: Annotated[float, Field(gt=0)] = 1.0
    expert_cap: Count = 0
    flops_per_second: Annotated[float, Field(ge=0)] = 0.0
    uplink: Annotated[float, Field(ge=0)] = 0.0
    seconds_total: Seconds = 0.0
    disk_free: Count | None = None
    board: Annotated[str, Field(max_length=200)] | None = None
    temperature: float | None = None
    throttled: bool | None = None
    gpu: Annotated[str, Field(max_length=200)] | None = None
