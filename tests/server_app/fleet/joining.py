"""Devices with data of their own that are there before the first round."""

from pathlib import Path
from typing import Any

import numpy as np

from common.task import Fixed
from server_app.fleet.fleet import Fleet
from tests.server_app.fleet.own import device, task_file, windows
from tests.server_app.fleet.town import Server, Town

NAMES = ("cam-north", "cam-south", "cam-west")
NO_MOMENTS: dict[str, Any] = {
    f"moments_{key}": [] for key in ("count", "mean", "m2", "least", "most")
}


def town_of(*names: str, **of_the_last: Any) -> Town:
    """Return nodes of devices, the last of which says something else as well."""
    town = Town(len(names))
    for number, name in enumerate(names):
        town.says[number + 1] = device(name, windows(number))
    town.says[len(names)] |= of_the_last
    return town


def server_of(town: Town, folder: Path, more: str = "", **config: Any) -> Server:
    return Server(town, task=task_file(folder, more), **config)


def begin(server: Server, server_round: int = 1, timeout: float = 5.0) -> list[str]:
    """Look at the fleet as before a round that has enough clients."""
    server.ready(server_round, timeout)
    names = server.ready(server_round, timeout)
    by_name = {client.name: client for client in server.fleet.clients}
    found = server.fleet.begin([by_name[name] for name in names])
    return [client.name for client in found]


def scale(fleet: Fleet) -> Fixed:
    found = fleet.agreement.task.scale
    assert isinstance(found, Fixed)
    return found


def pooled(*seeds: int) -> tuple[Any, Any]:
    """Return mean and std of all samples in one array: no moments are merged."""
    values = np.concatenate([windows(seed) for seed in seeds]).astype(np.float64)
    return values.mean(axis=(0, 2)), values.std(axis=(0, 2))
