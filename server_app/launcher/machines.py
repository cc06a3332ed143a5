"""The machines of a Ray cluster, asked by a process of its own.

Run as a script by ``cluster``: a request as JSON on standard input, answers as lines of
JSON on standard output. A process of its own, because Ray waits for minutes at a wrong
address and then ends whoever asked.

The machines have none of our code yet: what they run here goes to them by value and
needs the standard library alone.
"""

import hashlib
import json
import os
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def digest(path: str) -> str | None:
    """Return a hash of a file, or of the names and sizes below a directory.

    None if it is not there.
    """
    place, found = Path(path), hashlib.sha256()
    try:
        if place.is_dir():
            for each in sorted(place.rglob("*")):
                if each.is_file():
                    size = each.stat().st_size
                    found.update(f"{each.relative_to(place)}\0{size}\0".encode())
        else:
            with place.open("rb") as file:
                while data := file.read(1 << 20):
                    found.update(data)
    except OSError:
        return None
    return found.hexdigest()


def described(paths: list[str], packages: list[str]) -> dict[str, Any]:
    """Return what a machine has of some paths and packages."""
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "none"
    return {"paths": {path: digest(path) for path in paths}, "packages": versions}


def _joined(ray: Any, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Join the cluster and return its machines."""
    ray.init(
        address=request["address"],
        runtime_env={"working_dir": request["archive"]},
        log_to_driver=False,
    )
    return [
        {
            "id": node["NodeID"],
            "ip": node["NodeManagerAddress"],
            "cpus": node["Resources"].get("CPU", 0.0),
            "gpus": node["Resources"].get("GPU", 0.0),
        }
        for node in ray.nodes()
        if node["Alive"]
    ]


def _answers(
    ray: Any, nodes: list[str], *what: list[str]
) -> list[dict[str, Any] | None]:
    """Return what each machine has, None for one that is gone.

    A machine that lost its power is still on Ray's list for some 15 seconds.
    """
    from ray.exceptions import NodeDiedError, TaskUnschedulableError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # No core is asked for: who is busy answers as well.
    task = ray.remote(num_cpus=0, max_retries=0)(described)

    def answer(asked: Any) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = ray.get(asked)
        except (NodeDiedError, TaskUnschedulableError):
            return None
        return found

    there = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    asked = [task.options(scheduling_strategy=each).remote(*what) for each in there]
    return [answer(each) for each in asked]


def _free(ray: Any, wanted: float | None, seconds: float) -> tuple[float, float]:
    """Return how many cores are free, and how many there are.

    As soon as so many are free as are wanted (None: all), at the latest when time is
    up.
    """
    until = time.monotonic() + seconds
    while True:
        free = float(ray.available_resources().get("CPU", 0.0))
        total = float(ray.cluster_resources().get("CPU", 0.0))
        if free >= (total if wanted is None else wanted) or time.monotonic() > until:
            return free, total
        time.sleep(0.5)


def main() -> None:
    """Answer one request, step by step."""
    # Ray and what it starts write to standard output as they like: they get the other.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**answer: Any) -> None:
        print(json.dumps(answer), file=out, flush=True)

    request = json.loads(sys.stdin.readline())
    import ray

    try:
        say(nodes=_joined(ray, request))
        request |= json.loads(sys.stdin.readline())
        what = request["paths"], request["packages"]
        say(here=described(*what), there=_answers(ray, request["nodes"], *what))
        request |= json.loads(sys.stdin.readline())
        free, total = _free(ray, request["free"], request["patience"])
        say(free=free, total=total)
    except Exception as error:
        say(error=f"{error} {error.__cause__ or ''}".strip())


if __name__ == "__main__":
    main()
