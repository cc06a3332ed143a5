"""What is studied: the grids of the presets, table by table.

``quick`` is the papers' main table, with the dense models that are used in practice, at
a size for two cores (runs of about half a minute): 4 000 training samples, a small
model, 44 rounds. ``shift`` has devices that differ in what they see or what they call
it, at the same size, and ``reviews`` texts of four domains. ``frozen`` has all of
CIFAR-10, as a pretrained network sees it that is not trained. ``ablations`` takes the
strategies apart and stresses them at the same size, one seed. ``paper`` is the full
setting (C = 20, E = 8, ResNet, 100 rounds): days on a processor, so that ``--only``
picks from it and a GPU is used where there is one.
"""

from collections.abc import Iterable

from benchmarks.study.cells import Cell, Scalar

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
PAPER: dict[str, Scalar] = {
    "backbone": "resnet18",
    "num-rounds": 100,
    "eval-every": 10,
    "batch-size": 64,
    "lr": 0.01,
    "device": "auto",
}

Variants = dict[str, dict[str, Scalar]]

TRICKS: dict[str, Scalar] = {
    "client-keep": 0.25,
    "label-prior": 1.0,
    "loss-calibration": 0.25,
    "server-average": 0.8,
}
"""What helps any strategy under label skew; all off by default."""
PLUS: dict[str, Scalar] = {"strategy": "flex-moe-plus", **TRICKS}

BASELINE = "fedavg + tricks"
"""What a practitioner would use, of as many bytes; paired differences are to it."""
# One expert of 64 hidden units: the parameters of the two of 32 that a client holds.
WIDE: dict[str, Scalar] = {"expert-hidden": 64}
DENSE: Variants = {
    "fedavg": {"strategy": "fedavg", **WIDE},
    BASELINE: {"strategy": "fedavg", **WIDE, **TRICKS},
    "local": {"strategy": "local", **WIDE},
    "fedrep": {"strategy": "fedrep", **WIDE},
    "ditto": {"strategy": "ditto", **WIDE},
    "ifca + tricks": {"strategy": "ifca", **WIDE, **TRICKS},
}
OURS, PEER = "kin", "flex-moe"
"""What is held against the baseline, and whose bytes and balance against ours."""
KIN: Variants = {OURS: {"strategy": "kin", **TRICKS}}
STRATEGIES: Variants = {
    "random": {"strategy": "random"},
    "greedy": {"strategy": "greedy"},
    "flex-moe": {"strategy": "flex-moe"},
    "flex-moe-plus": PLUS,
}
MORE_STRATEGIES: Variants = {
    "greedy, loss": {"strategy": "greedy", "fitness": "loss"},
    "flex-moe, loss": {"strategy": "flex-moe", "fitness": "loss"},
    "flex-moe, alpha_adj=0": {"strategy": "flex-moe", "deficit-gain": 0.0},
    "round-robin": {"strategy": "round-robin"},
    "system-level": {"strategy": "system-level"},
}
# k = 2 is in the main table.
BUDGETS: Variants = {
    f"{name}, k={budget}": {**STRATEGIES[name], "expert-capacity": budget}
    for budget in ("1", "4", "1:0.5,2:0.3,4:0.2")
    for name in ("random", "flex-moe", "flex-moe-plus")
}
FLEX_ABLATION: Variants = {
    "flex-moe": {"strategy": "flex-moe"},
    "loss fitness": {"strategy": "flex-moe", "fitness": "loss"},
    "alpha_adj=0": {"strategy": "flex-moe", "deficit-gain": 0.0},
    "beta=0.1": {"strategy": "flex-moe", "fitness-rate": 0.1},
    "beta=0.9": {"strategy": "flex-moe", "fitness-rate": 0.9},
    "delta=0": {"strategy": "flex-moe", "load-tolerance": 0.0},
    "delta=0.5": {"strategy": "flex-moe", "load-tolerance": 0.5},
    "weighted by n": {"strategy": "flex-moe", "expert-weighting": "samples"},
}
NONE = "rotation=0.0, exploration=0.0, soft=false"


def plus(options: str = "", without: Iterable[str] = ()) -> dict[str, Scalar]:
    """Return the settings of flex-moe-plus with some options, without some tricks."""
    # Nothing set is no setting: the same run as in the main table.
    named: dict[str, Scalar] = {"strategy-options": options} if options else {}
    kept = {key: value for key, value in PLUS.items() if key not in without}
    return {**kept, **named}


PLUS_ABLATION: Variants = {
    "flex-moe-plus": plus(),
    "without rotation": plus("rotation=0.0, exploration=0.0"),
    "half the rounds rotating": plus("rotation=0.5"),
    "exploration bonus only": plus("rotation=0.0"),
    "each sample to one expert": plus("soft=false"),
    "keeps all of its change": plus(without=["client-keep"]),
    "without label prior": plus(without=["label-prior"]),
    "loss not calibrated": plus(without=["loss-calibration"]),
    "no average over rounds": plus(without=["server-average"]),
    "nothing added (flex-moe)": plus(NONE, without=TRICKS),
    "nothing but rotation": plus("exploration=0.0, soft=false", without=TRICKS),
}
# Rows of a table of their own: what the server reserves, clients do not have.
SERVER_GATE: Variants = {
    label: {**settings, "reserved-samples": 400}
    for label, settings in {
        "400 samples reserved": plus(),
        "and a server gate": plus("gate-epochs=5"),
        "flex-moe's parts and a server gate": plus(
            f"{NONE}, gate-epochs=5", without=TRICKS
        ),
    }.items()
}
STRESS: dict[str, dict[str, Scalar]] = {
    "20 % drop-out": {"drop-out": 0.2},
    "30 % capacity error": {"capacity-error": 0.3},
    "concept drift": {"drift": 0.025},
}
STRESSED: Variants = {
    f"{name}, {stress}": {**strategy, **settings}
    for stress, settings in STRESS.items()
    for name, strategy in (
        *(STRATEGIES | {"system-level": {"strategy": "system-level"}}).items(),
    )
}


def fed_moe_row(options: str) -> dict[str, Scalar]:
    """Return the settings of fed-moe with some options."""
    return {"strategy": "fed-moe", "strategy-options": options}


# Two and three main experts (Table 8) would all have the same values by Eq. 6.
FED_MOE: dict[str, Variants] = {
    "table 3": {f"{k} routed experts": fed_moe_row(f"experts={k}") for k in (1, 3, 7)},
    "table 4": {
        "without GEnt and Sync": fed_moe_row("entropy-weight=0.0, synchronise=false"),
        "GEnt": fed_moe_row("synchronise=false"),
        "Sync": fed_moe_row("entropy-weight=0.0"),
    },
    "table 5": {
        f"entropy weight {weight}": fed_moe_row(f"entropy-weight={weight}")
        for weight in (1e-4, 1e-2, 1e-1)
    },
    "table 6": {f"top {top}": fed_moe_row(f"top-l={top}") for top in (2, 3, 5)},
    "table 7": {
        # The anchors come on top of the five.
        "anchor-moe": {"strategy": "anchor-moe", "clients-per-round": 0},
        **{n: {"strategy": n} for n in ("cent-moe", "avg-moe", "fedavg", "fedprox")},
    },
    "table 8": {"no main expert": fed_moe_row("main-expert=false")},
}
FED_MOE_ROWS: Variants = {
    "fed-moe": {"strategy": "fed-moe"},
    **{
        f"{table}: {label}": settings
        for table, rows in FED_MOE.items()
        for label, settings in rows.items()
    },
}
# Five clients a round, as the paper has it.
FED_MOE_BASE: dict[str, Scalar] = {"clients-per-round": 5, "num-experts": 5}


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
    "ablations": ablations,
    "paper": paper,
}
