"""A study on a Ray cluster beside the same one in processes of this machine.

``python -m benchmarks.more_machines --ray-address HOST:PORT`` runs the same cells in
one process, in one process per machine of the cluster, and on the cluster, in turns. It
prints seconds and their ratios, with all that a study waits for: checking the cluster,
sending the code, starting workers. Meant for a cluster whose machines have one core
each; docs/more-machines.md says how to start one.
"""

import argparse
import time
from statistics import median

from benchmarks.study.cells import Cell
from benchmarks.study.on_ray import RayCluster
from benchmarks.study.one_cell import Ended, Task
from benchmarks.study.runner import Processes, Workers


def cells(number: int, rounds: int) -> list[Cell]:
    """Return so many runs of digits, 20 clients, that differ in their seed."""
    return [
        Cell(
            table="",
            dataset="digits",
            partition="dirichlet:0.5",
            label="flex-moe",
            seed=seed,
            clients=20,
            config={"strategy": "flex-moe", "num-rounds": rounds},
        )
        for seed in range(number)
    ]


def timed(workers: Workers, tasks: list[Task]) -> tuple[float, list[Ended]]:
    """Return the seconds that cells take, and what they gave, by seed."""
    start = time.perf_counter()
    ended = [*workers(tasks)]
    seconds = time.perf_counter() - start
    return seconds, sorted(ended, key=lambda each: each[0].seed)


def same(one: list[Ended], other: list[Ended]) -> bool:
    """Whether runs gave the same lines, but for their seconds."""
    lines = [
        [{**(line or {"error": error}), "seconds": 0.0} for _, line, error in ended]
        for ended in (one, other)
    ]
    return lines[0] == lines[1] and not any("error" in line for line in lines[0])


def main() -> int:
    """Print the table; 1 if the results differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ray-address", required=True, metavar="HOST:PORT")
    parser.add_argument("--machines", type=int, default=2)
    parser.add_argument("--cells", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    tasks: list[Task] = [(cell, "data") for cell in cells(args.cells, args.rounds)]
    names = ("one process", f"{args.machines} processes", "cluster")
    ways = (Processes(1), Processes(args.machines), RayCluster(args.ray_address))
    print(f"| seconds: {' | '.join(names)} | one / cluster | processes / cluster |")
    print("|---" * 5 + "|")
    ratios: list[tuple[float, float]] = []
    equal = True
    for turn in range(args.repeat):
        order = [(turn + shift) % 3 for shift in range(3)]
        found = {way: timed(ways[way], tasks) for way in order}
        one, several, cluster = (found[way][0] for way in range(3))
        ratios.append((one / cluster, several / cluster))
        equal &= all(same(found[0][1], found[way][1]) for way in (1, 2))
        figures = (*(f"{found[way][0]:.0f}" for way in range(3)),)
        print(f"| {' | '.join(figures)} | {ratios[-1][0]:.2f} | {ratios[-1][1]:.2f} |")
    middle = [median(column) for column in zip(*ratios, strict=True)]
    print(f"median: {middle[0]:.2f} and {middle[1]:.2f}; same results: {equal}")
    return 0 if equal else 1


if __name__ == "__main__":
    raise SystemExit(main())
