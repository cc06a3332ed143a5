"""The order: what a client is asked to do in one round."""

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from common.local_method import MethodName
from common.parts import EXTRACTOR, GATE, Mixes, expert_part, part_of_model
from common.wire.codec import Dtype
from common.wire.payloads import Count, PartName, Payload, RunName, Share, Version


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
        Share of the hidden channels of the sub-model that was sent (FedRolex,
        HeteroFL).
    common_gate : bool
        Whether a frozen network for the gate is part of the model (FedJETs).
    mixes : {"logits", "probabilities", "sum"}
        What the gate's weights are applied to; ``probabilities`` makes the local loss
        the likelihood of the mixture (FedMix), ``sum`` adds the experts up as if they
        were ``top_k``, and the gate learns beside them (KIN).
    proximal, gate_entropy, gate_supervision : float
        Extra terms of the local objective: mu/2 ||w - w_t||^2 (FedProx), the weight of
        the gate's entropy (FedMix; negative rewards a spread gate), and the weight of
        -log of the gate's mass on the experts sent (anchors of FedJETs).
    candidates : int
        Models sent, of which the client trains the one that fits its data best (IFCA).
        It returns the parts of one model, and which it was.
    masked_loss : bool
        Whether logits of classes the client has no sample of are 0 in its training loss
        (HeteroFL).
    download_dtype, upload_dtype : {"float32", "float16", "int8"}
        How the parts sent are encoded, and how the deltas shall be
        (:mod:`common.wire.codec`).
    merged_round : int
        Round of the client's last upload that was merged, 0 if none was: what that
        one left out by quantising belongs to this one.
    cached_parts, cached_versions : list of str
        Parts that are not sent because the client said it holds that version.
    base : str or None
        Version of the frozen base inside the model, which the client has, or is sent
        before (:mod:`common.wire.base_pieces`); None for a model without.
    keep_share : float
        Share of its local change the client keeps in the model it uses itself; 1 keeps
        all of it. What it returns is the whole change.
    calibration : float
        Weight of the log of the client's own label frequencies in the training loss,
        so that the logits need not carry them; 0 adds nothing.
    label_prior : float
        Weight of the log of the client's own label frequencies in what it predicts for
        its own samples; 0 adds nothing.
    private_parts : list of str
        Parts of the model that stay with the client: neither sent nor returned, begun
        from the seeded initial model and kept between rounds.
    method, personal_epochs, pull, mixing, adaptive
        How it trains; see :class:`common.local_method.LocalMethod`.
    task : str
        The task (:mod:`common.task`) as JSON, its scale worked out, for a client with
        data of its own; "" for one that has the server's data set, which says it.
    """

    run: RunName
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
    candidates: Annotated[int, Field(ge=1, le=64)] = 1
    masked_loss: bool = False
    download_dtype: Dtype = "float32"
    upload_dtype: Dtype = "float32"
    merged_round: Count = 0
    cached_parts: list[str] = []
    cached_versions: list[Version] = []
    base: Version | None = None
    keep_share: Share = 1.0
    calibration: Annotated[float, Field(ge=0)] = 0.0
    label_prior: Annotated[float, Field(ge=0)] = 0.0
    private_parts: list[PartName] = []
    method: MethodName = "plain"
    personal_epochs: Count = 0
    pull: Annotated[float, Field(ge=0)] = 0.0
    mixing: Share = 0.0
    adaptive: bool = True
    task: str = ""

    @model_validator(mode="after")
    def _versions_match(self) -> Self:
        if len(self.cached_parts) != len(self.cached_versions):
            raise ValueError("cached-versions must have one entry per cached part")
        return self

    def shared_parts(self) -> list[str]:
        """Names of the parts that are sent and trained, and are no client's own."""
        shared = [GATE] if self.gate == "shared" else []
        trained = [EXTRACTOR, *map(expert_part, self.experts), *shared]
        return [part for part in trained if part not in self.private_parts]

    def parts_of_all_models(self, parts: Iterable[str]) -> set[str]:
        """Return the names that the parts of one model have in all that are sent."""
        numbers = range(self.candidates)
        return {part_of_model(part, number) for part in parts for number in numbers}

    def returned_parts(self) -> list[str]:
        """Names of the parts a correct reply to this order carries."""
        return self.shared_parts() if self.train else []
