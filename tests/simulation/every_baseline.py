"""Every baseline, and KIN, once under a real ``flwr run``: the bits of one process.

``python -m tests.simulation.every_baseline [NAME ...]`` (``make baselines``) trains
each for two rounds on digits, in this process and under ``flwr run``, and says whether
all that the two wrote agrees: the rounds, the model, and what clients keep of their
own. Each takes a start of SuperLink and Ray, so the suite has one strategy of them
(``test_app``).
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from server_app.commands.simulate import simulate
from server_app.launcher.run import run_simulation
from server_app.launcher.signals import Interrupted
from tests.server_app.strategies.test_golden import NEEDS

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = 4
NAMES = (
    *("local", "fedavg-ft", "fedper", "fedrep", "fedbn"),
    *("ditto", "apfl", "ifca", "heterofl", "kin"),
)
CONFIG: dict[str, Any] = {
    "seed": 7,
    "num-rounds": 2,
    "num-experts": 4,
    "expert-capacity": "1:0.5,2:0.5",
    "partition": "concept:2+dirichlet:1.0",
    "train-samples": 200,
    "local-epochs": 1,
}
# Of a clock; and of node ids, which are longer numbers under Flower.
ELSE = ("seconds", "ended", "bytes")


def written(folder: Path) -> dict[str, Any]:
    """Return what a run wrote that must not depend on who ran it."""
    [run] = (folder / "out").iterdir()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    found: dict[str, Any] = {
        f"round {number}": timeless(json.loads(line))
        for number, line in enumerate(lines, 1)
    }
    if (run / "model.safetensors").exists():
        found |= load_file(run / "model.safetensors")
    for file in sorted((folder / "state").rglob("*.npy")):
        # <run>/<client>/<name>-<round>.npy; every run has a name of its own.
        found["/".join(file.relative_to(folder / "state").parts[1:])] = np.load(file)
    return found


def timeless(value: Any) -> Any:
    """Return what a run wrote without what says when and by whom."""
    if isinstance(value, list):
        return [timeless(each) for each in value]
    if isinstance(value, dict):
        return {
            key: timeless(each)
            for key, each in value.items()
            if not any(word in key for word in ELSE)
        }
    return value


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the names of what only one of them has, or has otherwise."""
    return sorted(
        name
        for name in one.keys() | other.keys()
        if name not in one
        or name not in other
        or not np.array_equal(one[name], other[name])
    )


def compared(name: str, folder: Path) -> str:
    """Train one strategy both ways; return what came of it, in a few words."""
    both = []
    for way in ("inline", "flower"):
        place = {
            "output-dir": str(folder / way / "out"),
            "state-dir": str(folder / way / "state"),
        }
        config = {**CONFIG, **NEEDS.get(name, {}), "strategy": name, **place}
        if way == "inline":
            simulate(config, CLIENTS)
        elif code := run_simulation(ROOT, CLIENTS, config, quiet=True):
            if code == Interrupted().code:
                raise KeyboardInterrupt
            return f"FAILED with exit code {code}"
        both.append(written(folder / way))
    if found := differences(*both):
        return f"DIFFERS in {', '.join(found)}"
    rounds = sum(name.startswith("round ") for name in both[0])
    return f"same ({rounds} rounds, {len(both[0]) - rounds} tensors)"


def main(names: list[str]) -> int:
    """Try every one of them; return 1 if one differs or fails."""
    failed = False
    for name in names or NAMES:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            outcome = compared(name, Path(folder))
        failed |= not outcome.startswith("same")
        print(f"{name:10} {outcome}, {time.monotonic() - started:.0f} s", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
