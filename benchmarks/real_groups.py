"""Whether KIN finds the groups of real partitions; nothing is trained.

    python -m benchmarks.real_groups --data-dir DIR [--seeds 0 1 2] [--noise 0.1]

Clients say of their samples what they would say in a run of that seed. ``groups`` are
those found, and beside each how well they agree with the partition's (adjusted Rand
index; 1 is exact). Where only label mixes differ one group is right. ``joins`` is the
share of clients that, coming last, find the group of their kind by one message, with
all their samples and with 20.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from client_app.class_statistic import class_statistic
from common.data.clients import ClientData, domains_of, load_client_data
from common.data.datasets import load_dataset
from common.data.partition import parse_partition
from common.seeding import derive
from common.wire import QueryReply
from server_app.grouping import MergeTest
from server_app.strategies.kin.membership import Membership

CLIENTS, PROJECTIONS, MOST = 20, 48, 4
SAMPLES = {"emnist": 4000, "cifar10": 4000, "gtsrb": 0}
PARTITIONS = (
    "iid",
    "dirichlet:1.0",
    "dirichlet:0.3",
    "classes:4",
    "classes:2",
    "rotation:4+dirichlet:1.0",
    "concept:4+dirichlet:1.0",
    "photometric:4+dirichlet:1.0",
    "rotation:4+dirichlet:0.3",
    "rotation:11/6/2/1+dirichlet:1.0",
    "concept:18/2+dirichlet:1.0",
    "rotation:2+photometric:2+dirichlet:1.0",
)


def says(
    client: ClientData, name: str, seed: int, noise: float, few: int | None = None
) -> QueryReply:
    """Return the answer of a client, of its first training samples or of all."""
    rows = np.random.default_rng(0).permutation(len(client.y_train))[:few]
    x = torch.from_numpy(client.normalise(client.x_train[rows]))
    said = class_statistic(
        x,
        torch.from_numpy(client.y_train[rows]),
        client.num_classes,
        seed=derive(seed, "statistic") % 2**53,
        projections=PROJECTIONS,
        units=None if client.units is None else client.units[rows],
        noise=noise,
    )
    return silent(name).model_copy(update=said.model_dump())


def silent(name: str) -> QueryReply:
    """Return the answer of a client that says nothing of its samples."""
    return QueryReply(
        client=name,
        partition_id=0,
        num_partitions=CLIENTS,
        num_examples=1,
        code_hash="",
        partition_hash="",
    )


def found(said: Sequence[QueryReply], classes: int, noise: float) -> Membership:
    """Return the groups of clients, as kin makes them of eight experts."""
    members = Membership(
        MergeTest(most=MOST), classes=classes, projections=PROJECTIONS, noise=noise
    )
    members.take_in(said)
    return members


def joined(
    said: Sequence[QueryReply], last: QueryReply, row: int, classes: int, noise: float
) -> NDArray[np.int64]:
    """Return the groups where the client of a row comes last."""
    others = [*said[:row], silent(last.client), *said[row + 1 :]]
    members = found(others, classes, noise)
    members.take_in([*said[:row], last, *said[row + 1 :]])
    return members.groups


def main() -> None:
    """Print a line per data set and partition."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--datasets", nargs="+", default=list(SAMPLES))
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--joins", action="store_true")
    args = parser.parse_args()
    for name in args.datasets:
        dataset = load_dataset(name, args.data_dir)
        for text in PARTITIONS:
            spec = parse_partition(text)
            results: list[str] = []
            right: list[tuple[int | None, bool]] = []
            for seed in args.seeds:
                domains = [str(d) for d in domains_of(dataset, spec, CLIENTS, seed)]
                kinds = np.unique(domains, return_inverse=True)[1]
                samples = SAMPLES.get(name, 0)
                clients = [
                    load_client_data(
                        dataset, spec, c, CLIENTS, seed, train_samples=samples
                    )
                    for c in range(CLIENTS)
                ]
                say = [says(c, str(i), seed, args.noise) for i, c in enumerate(clients)]
                members = found(say, dataset.num_classes, args.noise)
                rand = adjusted_rand_score(kinds, members.groups)
                results.append(f"{members.count} ({rand:.2f})")
                if not args.joins or not spec.factors:
                    continue
                for row, client in enumerate(clients):
                    for few in (None, 20):
                        last = says(client, str(row), seed, args.noise, few)
                        groups = joined(say, last, row, dataset.num_classes, args.noise)
                        alike = (kinds == kinds[row]) & (np.arange(CLIENTS) != row)
                        if alike.any():
                            most = np.bincount(groups[alike]).argmax()
                            right.append((few, bool(groups[row] == most)))
            shares = [
                f"{np.mean([yes for f, yes in right if f == few]):.2f}"
                for few in (None, 20)
                if right
            ]
            print(
                f"{name:8} {text:40} groups {'  '.join(results)}", *shares, flush=True
            )


if __name__ == "__main__":
    main()
