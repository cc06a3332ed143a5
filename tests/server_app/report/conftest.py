"""A run's directory made by hand: three rounds, two clients, three experts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_app.run_folder.matrices import FitnessFile

SETTINGS = {
    "strategy": "flex-moe",
    "dataset": "digits",
    "partition": "classes:2",
    "seed": 5,
    "num-rounds": 3,
}


def client(name: str, experts: list[int], local: float) -> dict[str, Any]:
    return {
        "client": name,
        "experts": experts,
        "client_local": local,
        "client_global": local / 2,
        "seconds": 0.25,
    }


def line(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "round": number,
        "merged": True,
        "server_global": 0.2 * number,
        "client_global": 0.1 * number,
        "client_local": 0.3 * number,
        "cv_round": 0.5,
        "cv_cumulative": 0.25 / number,
        "cv_samples": 0.75,
        "dead_share": 0.375,
        "load": [1, 1, 0],
        "samples": [10, 20, 0],
        "bytes_down": 2_000_000,
        "bytes_up": 1_000_000,
        "seconds": 2.0,
        "solver": {"name": "flow", "status": "optimal", "seconds": 0.5},
        "notes": [],
        "rejected": {},
        "late": 0,
        "clients": [client("a", [0], 0.9), client("b", [1], 0.5)],
        **changes,
    }


def write_run(folder: Path, rounds: list[dict[str, Any]], **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "run": folder.name,
        "settings": {**SETTINGS, **settings},
        "versions": {},
        "clients": {"a": {}, "b": {}},
    }
    (folder / "run.json").write_text(json.dumps(facts))
    lines = "".join(json.dumps(one) + "\n" for one in rounds)
    (folder / "metrics.jsonl").write_text(lines)
    file = FitnessFile(folder)
    shape = (len(rounds), 2, 3)
    fitness = np.linspace(0, 1, 6 * len(rounds), dtype=np.float32).reshape(shape)
    for one, matrix in zip(rounds, fitness, strict=True):
        file.append(one["round"], matrix)
    np.savez(folder / "expert_classes.npz", recall=np.eye(3, 10))
    return folder


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    moved = [client("a", [2], 0.9), client("b", [1], 0.5)]
    rounds = [
        line(1, server_global=None),
        line(2, rejected={"b": "error 2: <gone> & away"}, late=1, clients=moved),
        line(3, notes=["load-tolerance widened from 0.1 to 0.2"]),
    ]
    return write_run(tmp_path / "run-a", rounds)
