"""How long the merge test takes, and whether it finds the groups.

    python -m benchmarks.grouping [--clients 20 100 1000 3000]

Clients hold 200 samples of 26 classes each, mixed by Dirichlet 1.0, and say 48 features
of them. ``one`` is a fleet in which a class means the same everywhere, ``four`` one of
four groups that number their classes in four ways. `seconds` is the wall time of
``server_app.grouping.groups_of`` and nothing else, `cpu s` the processor time, the
fairer figure on a shared machine; both are the best of three runs.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from server_app.grouping import ClassMeans, MergeTest, groups_of

CLASSES, FEATURES, SAMPLES = 26, 48, 200


def fleet(clients: int, groups: int, rng: np.random.Generator) -> ClassMeans:
    """Return what so many clients say, group by group in turn, features whitened."""
    centres = rng.standard_normal((CLASSES, FEATURES))
    own = [centres[rng.permutation(CLASSES)] for _ in range(groups)]
    mixes = rng.dirichlet(np.ones(CLASSES), clients)
    counts = np.array([rng.multinomial(SAMPLES, mix) for mix in mixes], np.float64)
    noise = rng.standard_normal((clients, CLASSES, FEATURES))
    means = np.array([own[client % groups] for client in range(clients)])
    return ClassMeans.of(
        means + noise / np.sqrt(np.maximum(counts, 1))[:, :, None], counts
    )


def main() -> None:
    """Print a line per fleet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[20, 100, 1000, 3000])
    print(" clients  fleet  seconds    cpu s  groups  right")
    for clients in parser.parse_args().clients:
        for name, groups in (("one", 1), ("four", 4)):
            said = fleet(clients, groups, np.random.default_rng(clients))
            seconds, cpu = [], []
            for _ in range(3):
                started, worked = time.perf_counter(), time.process_time()
                labels = groups_of(said, MergeTest(most=8))
                seconds.append(time.perf_counter() - started)
                cpu.append(time.process_time() - worked)
            right = np.array_equal(labels, np.arange(clients) % groups)
            print(
                f"{clients:8d} {name:>6} {min(seconds):8.3f} {min(cpu):8.3f} "
                f"{labels.max() + 1:7d} {right!s:>6}"
            )


if __name__ == "__main__":
    main()
