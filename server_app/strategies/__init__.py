"""The strategies by name, and the door for the user's own.

A strategy is named by its registered name, by an entry point of the group
``expertfleet.strategies``, as ``module:Class``, or, for Flower's own, as
``flwr:Class``. No algorithm is imported until it is asked for.
"""

from flwr.serverapp.strategy import Strategy

from common.registry import Registry
from server_app.strategies.base import (
    ExpertStrategy,
    Plan,
    Reply,
    StrategyOptions,
    View,
)

__all__ = [
    "STRATEGIES",
    "ExpertStrategy",
    "Plan",
    "Reply",
    "StrategyOptions",
    "View",
    "find_strategy",
]

STRATEGIES = Registry(
    kind="strategies",
    setting="strategy",
    expected="an ExpertStrategy or a Flower Strategy",
    accepts=lambda found: isinstance(found, type) and issubclass(found, Strategy),
    notation="flwr:Class or module:Class",
    built_in={
        "anchor-moe": "server_app.strategies.fedjets:AnchorMoE",
        "apfl": "server_app.strategies.apfl:APFL",
        "avg-moe": "server_app.strategies.fedmix:AvgMoE",
        "cent-moe": "server_app.strategies.cent_moe:CentMoE",
        "ditto": "server_app.strategies.ditto:Ditto",
        "fed-moe": "server_app.strategies.fed_moe.fed_moe:FedMoE",
        "fedavg": "server_app.strategies.dense:FedAvg",
        "fedavg-ft": "server_app.strategies.fedavg_ft:FedAvgFT",
        "fedbn": "server_app.strategies.fedbn:FedBN",
        "fedjets": "server_app.strategies.fedjets:FedJETs",
        "fedmix": "server_app.strategies.fedmix:FedMix",
        "fedper": "server_app.strategies.fedper:FedPer",
        "fedprox": "server_app.strategies.dense:FedProx",
        "fedrep": "server_app.strategies.fedrep:FedRep",
        "fedrolex": "server_app.strategies.sub_models.fedrolex:FedRolex",
        "flex-moe": "server_app.strategies.flex_moe:FlexMoE",
        "flex-moe-plus": "server_app.strategies.flex_moe_plus:FlexMoEPlus",
        "greedy": "server_app.strategies.baselines:Greedy",
        "heterofl": "server_app.strategies.sub_models.heterofl:HeteroFL",
        "hfedmoe": "server_app.strategies.hfedmoe:HFedMoE",
        "ifca": "server_app.strategies.ifca:IFCA",
        "kin": "server_app.strategies.kin.kin:Kin",
        "local": "server_app.strategies.local:Local",
        "random": "server_app.strategies.baselines:Random",
        "round-robin": "server_app.strategies.baselines:RoundRobin",
        "system-level": "server_app.strategies.system_level:SystemLevel",
    },
)


def find_strategy(name: str) -> type[ExpertStrategy]:
    """Return the strategy class a ``strategy`` setting names.

    Raises
    ------
    SettingsError
        If there is none; the message gives the nearest name.
    """
    # Late: the adapter imports this package's base.
    from server_app.strategies.flower import PREFIX, adapted, flower_strategy

    if name.startswith(PREFIX):
        return flower_strategy(name.removeprefix(PREFIX))
    found: type[Strategy] = STRATEGIES.find(name)
    return found if issubclass(found, ExpertStrategy) else adapted(found, name)
