"""The mixture layer against a dense layer of equal active FLOPs and a naive loop.

``python -m benchmarks.moe_layer`` times forward and backward of the layer without its
backbone (routing statistics left out, as in the training loop's own pass) for batches
of 32 to 2 048 and 4 to 32 experts, with 1 and 2 threads, and prints the ratio of the
medians to

- *dense*: a gate of the same width and one expert, applied to every sample ``top-k``
  times: the same matrix products, nothing to route;
- *naive*: a loop over all held experts with a boolean mask each, the textbook form.

*products* is not a layer: the matrix products of its experts alone, five for each, of
the sizes that the gate makes them and into buffers that exist. What it takes against
the dense layer is what is left to gain where the library that multiplies is given.

The four take turns, so a busy machine slows them alike. With one thread it is CPU
time that is measured. Freed memory stays in the process, as in a client's.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from client_app.device.allocator import keep_freed_memory
from common.moe import MoELayer
from common.moe.experts import MLPExpert

BATCHES = (32, 64, 128, 256, 512, 1024, 2048)
EXPERTS = (4, 8, 16, 32)


class Dense(nn.Module):
    """The gate's product, and one expert's on every sample ``top_k`` times."""

    def __init__(
        self, features: int, hidden: int, classes: int, experts: int, top_k: int
    ):
        super().__init__()
        self.gate = nn.Linear(features, experts)
        self.expert = MLPExpert(features, hidden, classes)
        self.top_k = top_k

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, D) to (B, C)."""
        probs = self.gate(x).softmax(1)
        out = self.expert(x.repeat_interleave(self.top_k, 0))
        mixed: torch.Tensor = out.unflatten(0, (len(x), self.top_k)).sum(1)
        return mixed * probs[:, :1]


class Naive(nn.Module):
    """A loop over experts with a mask each, over the layer's own parameters."""

    def __init__(self, layer: MoELayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, D) to (B, C)."""
        layer = self.layer
        probs = layer.gate(x)[:, layer.held_ids].softmax(1)
        weight, chosen = probs.topk(layer.top_k, 1)
        out: torch.Tensor | None = None
        for slot, expert in enumerate(layer.experts.values()):
            mask = chosen == slot
            rows = mask.any(1)
            if not rows.any():
                continue
            answer = expert(x[rows]) * (weight * mask).sum(1)[rows, None]
            if out is None:
                out = x.new_zeros(len(x), answer.shape[1])
            out = out.index_add(0, rows.nonzero()[:, 0], answer)
        assert out is not None
        return out


def products(moe: MoELayer, x: torch.Tensor) -> Callable[[], None]:
    """Return what multiplies as the experts do in a step, and does nothing else."""
    slots = moe(x)[1].slots.flatten()
    sizes = torch.bincount(slots, minlength=len(moe.experts)).tolist()
    calls: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for expert, rows in zip(moe.experts.values(), sizes, strict=True):
        hidden, out = (
            expert.get_parameter(f"{layer}.weight").detach()
            for layer in ("hidden", "out")
        )
        x_nD, grad_nO = torch.randn(rows, x.shape[1]), torch.randn(rows, len(out))
        hidden_nF, back_nF = torch.randn(2, rows, len(hidden))
        calls += [
            (x_nD, hidden.t(), hidden_nF),
            (hidden_nF, out.t(), torch.empty_like(grad_nO)),
            (grad_nO.t(), hidden_nF, torch.empty_like(out)),
            (grad_nO, out, back_nF),
            (back_nF.t(), x_nD, torch.empty_like(hidden)),
        ]

    def run() -> None:
        for left, right, result in calls:
            torch.mm(left, right, out=result)

    return run


def seconds(step: Callable[[], None], repeats: int) -> float:
    """Return the seconds of one step, over ``repeats`` of them."""
    # One thread: CPU time, which other programs on the machine disturb less.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    for _ in range(repeats):
        step()
    return (clock() - started) / repeats


def compare(
    batch: int, experts: int, top_k: int, features: int, hidden: int, rounds: int
) -> tuple[float, float, float, float]:
    """Return median milliseconds: the layer, the dense one, the loop, the products."""
    torch.manual_seed(0)
    x = torch.randn(batch, features)
    layer = MoELayer(
        in_features=features,
        hidden=hidden,
        out_features=10,
        num_experts=experts,
        held=tuple(range(experts)),
        top_k=top_k,
    )
    dense, naive = Dense(features, hidden, 10, experts, top_k), Naive(layer)

    def step(
        module: nn.Module, forward: Callable[[], torch.Tensor]
    ) -> Callable[[], None]:
        parameters = list(module.parameters())

        def run() -> None:
            for parameter in parameters:
                parameter.grad = None
            forward().square().mean().backward()

        return run

    steps = [step(layer, lambda: layer(x)[0]), step(dense, lambda: dense(x))]
    steps += [step(naive, lambda: naive(x)), products(layer, x)]
    for run in steps:
        run()
    repeats = max(1, int(0.01 / seconds(steps[0], 3)))
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for run, measured in zip(steps, times, strict=True):
            measured.append(seconds(run, repeats))
    ours, theirs, loop, alone = (1e3 * median(measured) for measured in times)
    return ours, theirs, loop, alone


def main() -> None:
    """Print one line per case and the worst ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--top-k", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", default="1,2")
    args = parser.parse_args()
    print(f"features {args.features}, hidden {args.hidden}, top-k {args.top_k}")
    print(
        "threads  batch experts   layer ms  dense ms  naive ms products ms"
        "   /dense  /naive  products/dense"
    )
    worst: dict[tuple[int, str], float] = {}
    keep_freed_memory()
    for threads in map(int, args.threads.split(",")):
        torch.set_num_threads(threads)
        for batch in BATCHES:
            for experts in EXPERTS:
                ours, dense, naive, alone = compare(
                    batch, experts, args.top_k, args.features, args.hidden, args.repeats
                )
                print(
                    f"{threads:7d} {batch:6d} {experts:7d} {ours:10.3f} {dense:9.3f} "
                    f"{naive:9.3f} {alone:11.3f} {ours / dense:8.2f} "
                    f"{ours / naive:7.2f} {alone / dense:15.2f}",
                    flush=True,
                )
                for base, ratio in (("dense", ours / dense), ("naive", ours / naive)):
                    key = (batch, base)
                    worst[key] = max(worst.get(key, 0.0), ratio)
    print("\nworst ratio, by batch size")
    for batch in BATCHES:
        print(
            f"  batch {batch:5d}: {worst[batch, 'dense']:.2f} x dense, "
            f"{worst[batch, 'naive']:.2f} x naive"
        )


if __name__ == "__main__":
    main()
