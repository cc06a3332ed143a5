"""Who is compared in a study: the rows of its tables, as settings.

The sizes, data and partitions they are compared at are in ``benchmarks.study.presets``.
"""

from collections.abc import Iterable

from benchmarks.study.cells import Scalar

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
