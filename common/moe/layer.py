"""The mixture layer: a private gate over the experts this device holds.

Shape suffixes: B samples, M positions that are routed (samples, or the tokens of a
text), D features, O outputs (classes, or features again), E experts of this layer,
H experts held here, K experts a position is routed to.

Which experts exist on a device is decided elsewhere; the layer never allocates one it
was not given.
"""

from dataclasses import replace

import torch
from torch import nn

from common.moe.experts import Expert, MLPExpert, modules_of, run_experts
from common.moe.routing import Exploration, Routing
from common.parts import Mixes


class BankGate(nn.Module):
    """A gate of ``banks`` numbers that sees no sample: one for every bank of experts.

    Expert e is of bank e modulo ``banks``.

    Parameters
    ----------
    num_experts, banks : int
    """

    def __init__(self, num_experts: int, banks: int) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.banks = nn.Parameter(torch.zeros(banks))

    def reset_parameters(self) -> None:
        """Weigh all banks alike."""
        nn.init.zeros_(self.banks)

    def forward(self, x_MD: torch.Tensor) -> torch.Tensor:
        """Return the same logits (M, E) for every position."""
        bank_E = torch.arange(self.num_experts, device=x_MD.device) % len(self.banks)
        return self.banks[bank_E].expand(x_MD.shape[0], -1)


class MoELayer(nn.Module):
    """Gate, dispatch and combine.

    Parameters
    ----------
    held : sequence of int
        Sorted numbers, within the layer, of the experts on this device; only they are
        allocated.
    top_k : int
        Experts a position is routed to among the held ones; 0 routes to all (soft).
    expert : Expert
        Makes one, of ``hidden`` units.
    scale : float
        Factor of features and of hidden activations, 1 / width of a sub-model: a sum
        over a share of the channels is as large as over all (the static scaling of
        HeteroFL, which FedRolex keeps), so the sub-model's weights fit the full model.
    mixes : {"logits", "probabilities", "sum"}
        What the gate's weights are applied to. Of ``probabilities``, the answer is
        log sum_e g_e p_e(y|x), so that its cross-entropy is the likelihood of the
        mixture (FedMix). Of ``sum``, it is ``top_k`` times the weighted mean of all
        held experts, with equal weights in training: k experts of hidden size h add up
        to one of k h, and fewer stand for all. Its gate is a :class:`BankGate` of
        ``top_k`` numbers (KIN).

    Attributes
    ----------
    exploration : Exploration or None
        Set by whoever trains the layer.

    Notes
    -----
    The weight of an expert is its softmax probability over the held experts, not
    renormalised over the chosen ones, so that the gate learns with ``top_k = 1`` too
    (Switch Transformers, Eq. 2).
    """

    held_ids: torch.Tensor
    exploration: Exploration | None = None

    def __init__(
        self,
        *,
        in_features: int,
        hidden: int,
        out_features: int,
        num_experts: int,
        held: tuple[int, ...],
        top_k: int,
        expert: Expert = MLPExpert,
        scale: float = 1.0,
        mixes: Mixes = "logits",
    ) -> None:
        super().__init__()
        self.scale = scale
        self.mixes = mixes
        self.top_k = min(top_k, len(held)) or len(held)
        self.whole = top_k  # experts that a sum is of, held or not
        self.gate = nn.Linear(in_features, num_experts)
        if mixes == "sum":
            self.gate = BankGate(num_experts, top_k)  # type: ignore[assignment]
        self.experts = nn.ModuleDict(
            {str(e): expert(in_features, hidden, out_features, scale) for e in held}
        )
        self.register_buffer("held_ids", torch.tensor(held), persistent=False)

    def draw(self, count: int) -> torch.Tensor | None:
        """Draw where to send what the gate does not decide on.

        Returns
        -------
        Tensor of int, shape (count, K), or None
            Slots drawn by chance, -1 where the gate decides; None if it always does.
        """
        held, explore = len(self.held_ids), self.exploration
        if explore is None or not self.training or self.top_k == held:
            return None
        order = torch.rand(count, held, generator=explore.generator).argsort(1)
        left = torch.rand(count, 1, generator=explore.generator) >= explore.share
        return order[:, : self.top_k].masked_fill(left, -1).to(self.held_ids.device)

    def members(self, module: int = 0) -> list[nn.Module]:
        """Return one module of every held expert; most experts are only one."""
        return [modules_of(expert)[module] for expert in self.experts.values()]

    def forward(
        self,
        x_MD: torch.Tensor,
        gate_input: torch.Tensor | None = None,
        drawn_MK: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Routing]:
        """Route features (M, D) or maps; return outputs (M, O) and who was sent where.

        The gate may look at other features than the experts, shape (M, G). What was
        drawn goes where :meth:`draw` says.
        """
        if self.scale != 1:
            x_MD = self.scale * x_MD
        seen_MD = over_places(x_MD) if gate_input is None else gate_input
        weight_MK, routing = self.choose(seen_MD, drawn_MK)
        expert_MKO = run_experts(x_MD, self.members(), routing.slots)
        output_MO = self.combine(expert_MKO, weight_MK)
        return output_MO, replace(routing, expert_logits=expert_MKO)

    def choose(
        self, seen_MD: torch.Tensor, drawn_MK: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Routing]:
        """Choose experts by what the gate sees, (M, D).

        Returns
        -------
        tuple of (Tensor, Routing)
            Weights (M, K) of the chosen experts, as :meth:`combine` takes them, and who
            was chosen.
        """
        gate_ME = self.gate(seen_MD)
        # Selecting the held columns equals masking the others with -inf before the
        # softmax, without computing the masked ones.
        held_MH = gate_ME.index_select(1, self.held_ids)
        probs_MH = torch.softmax(held_MH, dim=1)
        # The largest one alone is several times as fast to find as the largest k.
        weight_MK, slots_MK = (
            probs_MH.max(1, keepdim=True)
            if self.top_k == 1
            else probs_MH.topk(self.top_k, dim=1)
        )
        if drawn_MK is not None:
            slots_MK = torch.where(drawn_MK < 0, slots_MK, drawn_MK)
            weight_MK = probs_MH.gather(1, slots_MK)
            # With the small weight the gate gave it an expert would hardly learn. Its
            # gradient stays the gate's.
            least = weight_MK.detach().clamp_min(1 / probs_MH.shape[1])
            weight_MK = weight_MK + (least - weight_MK.detach()) * (drawn_MK >= 0)
        if self.mixes == "sum" and self.training:
            # The experts must not follow a gate that nobody shares.
            weight_MK = torch.full_like(weight_MK, 1 / weight_MK.shape[1])
        elif self.mixes == "probabilities":
            # In logs throughout: the log of a product that underflowed has no gradient.
            weight_MK = held_MH.log_softmax(1).gather(1, slots_MK)
        routing = Routing(slots=slots_MK, held_probs=probs_MH, gate_logits=gate_ME)
        return weight_MK, routing

    def combine(
        self, expert_MKO: torch.Tensor, weight_MK: torch.Tensor
    ) -> torch.Tensor:
        """Mix what the chosen experts answered, (M, K, O), into (M, O)."""
        if self.mixes == "probabilities":
            joint_MKO = expert_MKO.log_softmax(2) + weight_MK[:, :, None]
            return joint_MKO.logsumexp(1)
        mixed_MO = (expert_MKO * weight_MK[:, :, None]).sum(1)
        return self.whole * mixed_MO if self.mixes == "sum" else mixed_MO


def over_places(x: torch.Tensor) -> torch.Tensor:
    """Return features (M, D) as they are, and the mean over places of maps."""
    return x if x.ndim == 2 else x.flatten(2).mean(2)
