"""The strategies by name, and the door for the user's own.

A strategy is named by its registered name, by an entry point of the group
``expertfleet.strategies``, as ``module:Class``, or, for Flower's own, as
``flwr:Class``. No algorithm is imported until it is asked for.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from flwr.serverapp.strategy import Strategy

from common.config import Settings
from common.sections import SettingsError, nearest
from common.shape import dataset_of, model_spec
from server_app.sinks import sink_names
from server_app.strategies.base import (
    ExpertStrategy,
    Plan,
    Reply,
    StrategyOptions,
    View,
)

__all__ = [
    "ENTRY_POINTS",
    "STRATEGIES",
    "ExpertStrategy",
    "Plan",
    "Reply",
    "StrategyOptions",
    "View",
    "find_strategy",
]

ENTRY_POINTS = "expertfleet.strategies"

STRATEGIES: dict[str, str] = {
    "anchor-moe": "server_app.strategies.fedjets:AnchorMoE",
    "avg-moe": "server_app.strategies.fedmix:AvgMoE",
    "cent-moe": "server_app.strategies.cent_moe:CentMoE",
    "fed-moe": "server_app.strategies.fed_moe:FedMoE",
    "fedavg": "server_app.strategies.dense:FedAvg",
    "fedjets": "server_app.strategies.fedjets:FedJETs",
    "fedmix": "server_app.strategies.fedmix:FedMix",
    "fedprox": "server_app.strategies.dense:FedProx",
    "fedrolex": "server_app.strategies.fedrolex:FedRolex",
    "flex-moe": "server_app.strategies.flex_moe:FlexMoE",
    "flex-moe-plus": "server_app.strategies.flex_moe_plus:FlexMoEPlus",
    "greedy": "server_app.strategies.baselines:Greedy",
    "hfedmoe": "server_app.strategies.hfedmoe:HFedMoE",
    "random": "server_app.strategies.baselines:Random",
    "round-robin": "server_app.strategies.baselines:RoundRobin",
    "system-level": "server_app.strategies.system_level:SystemLevel",
}


def check_run_config(run_config: Mapping[str, Any]) -> None:
    """Check everything a run-config says before a device is contacted.

    Loads the data set (a download happens here), so that a name or file that cannot
    be used is known as well.

    Raises
    ------
    ValueError
        SettingsError or DataError: one line that names the key or file, the value and
        what is allowed.
    """
    settings = Settings.from_run_config(run_config)
    find_strategy(settings.run.strategy).parse_options(settings)
    sink_names(settings.run.sinks)
    model_spec(settings, dataset_of(settings))


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
    plugins = {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
    known = {**plugins, **STRATEGIES}
    target = known.get(name, name)
    module_name, _, class_name = target.partition(":")
    if not class_name:
        raise SettingsError(
            f"strategy = {name!r} is not allowed: choose from "
            f"{', '.join(sorted(known))}, {PREFIX}Class or module:Class"
            f"{nearest(name, known)}"
        )
    try:
        found = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"strategy = {name!r} cannot be loaded: {error}") from error
    if isinstance(found, type) and issubclass(found, ExpertStrategy):
        return found
    if isinstance(found, type) and issubclass(found, Strategy):
        return adapted(found, name)
    raise SettingsError(
        f"strategy = {name!r} is neither an ExpertStrategy nor a Flower Strategy"
    )
