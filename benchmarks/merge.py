"""Merging a round's replies against a plain weighted sum of the same bytes.

``python -m benchmarks.merge`` unpacks and merges 100 replies of 20 MB (eight experts
and an extractor) the way the server does, as order-free integer sums, and adds up the
same vectors with ``total += weight * vector``, in turns; it prints the medians, their
ratio, and the peak memory of the merge above its start, in models. The first merge of a
process compiles its loop; that is timed apart.
"""

import argparse
import itertools
import time
import tracemalloc
from collections.abc import Iterator
from statistics import median

import numpy as np
from flwr.app import Array

from common import wire
from server_app.merging.means import PartMeans

PARTS = 9
DISTINCT = 12
"""Replies made; reused in turn, together far larger than any cache."""

Reply = dict[str, Array]


def replies(size: int, clients: int) -> Iterator[tuple[Reply, int]]:
    """Yield one packed reply per client and its weight."""
    made = []
    for seed in range(min(DISTINCT, clients)):
        rng = np.random.default_rng(seed)
        values = rng.normal(scale=0.01, size=size).astype(np.float32)
        pieces = np.array_split(values, PARTS)
        made.append(wire.pack({f"part.{i}": piece for i, piece in enumerate(pieces)}))
    for number, reply in zip(range(clients), itertools.cycle(made), strict=False):
        yield reply, 100 + number


def exact(given: list[tuple[Reply, int]], model: dict[str, np.ndarray]) -> None:
    """Merge as the server does."""
    sums = PartMeans()
    for reply, weight in given:
        for part, vector in wire.unpack(reply).items():
            sums.add(part, vector, weight)
    sums.apply(model)


def plain(given: list[tuple[Reply, int]], model: dict[str, np.ndarray]) -> None:
    """Add up floats, in the order of arrival."""
    total = {part: np.zeros_like(vector) for part, vector in model.items()}
    everything = 0
    for reply, weight in given:
        for part, vector in wire.unpack(reply).items():
            total[part] += np.float32(weight) * vector
        everything += weight
    for part, vector in total.items():
        model[part] = model[part] + vector / np.float32(everything)


def main() -> None:
    """Print seconds, ratio and memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--megabytes", type=float, default=20.0)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    size = int(args.megabytes * 1e6 / 4)
    given = list(replies(size, args.clients))
    empty = {name: np.zeros(a.shape, np.float32) for name, a in given[0][0].items()}
    started = time.perf_counter()
    exact(given[:1], dict(empty))
    first = time.perf_counter() - started
    seconds: dict[str, list[float]] = {"exact": [], "plain": []}
    for _ in range(args.repeats):
        for merge in (exact, plain):
            model = dict(empty)
            started = time.perf_counter()
            merge(given, model)
            seconds[merge.__name__].append(time.perf_counter() - started)
    ours, floor = median(seconds["exact"]), median(seconds["plain"])
    model = dict(empty)
    tracemalloc.start()
    exact(given, model)
    peak = tracemalloc.get_traced_memory()[1] / (4 * size)
    print(
        f"{args.clients} replies of {args.megabytes:g} MB, {args.repeats} repetitions"
    )
    print(f"  order-free merge    {ours:7.3f} s")
    print(f"  plain weighted sum  {floor:7.3f} s")
    print(f"  ratio               {ours / floor:7.2f}")
    print(f"  first reply of all  {first:7.3f} s, once per process")
    print(f"  peak memory above the start: {peak:.2f} models")


if __name__ == "__main__":
    main()
