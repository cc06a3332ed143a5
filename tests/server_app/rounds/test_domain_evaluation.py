"""What the server would hand each client: two models and two domains by hand.

Samples are images of 2x2 pixels with one bright pixel, top left in class 0 and bottom
right in class 1. Turned by half a turn, each looks like the other.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord
from torch import nn

from common.settings import Settings
from common.shape import dataset_of, model_spec
from server_app.fleet.agreement import Agreement
from server_app.fleet.client import Client
from server_app.fleet.client_domains import domain_of
from server_app.rounds.evaluation import server_evaluation
from server_app.strategies.baselines import Random
from tests.server_app.strategies.handmade import profile

TESTED = [0, 0, 0, 1]


class Upright(nn.Module):
    """Answers class 0 if the pixel top left is the brighter one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[:, 0, 0, 0], x[:, 0, 1, 1]], dim=1)


class Always(nn.Module):
    """Answers class 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tensor([1.0, 0.0]).expand(len(x), 2)


class Groups(Random):
    """Has two models, and says by row who would get which."""

    handed: tuple[int, ...] = ()
    built: list[int]

    def global_model(self) -> nn.Module:
        return Upright()

    def serves(self, client: int) -> int:
        return self.handed[client]

    def served_model(self, which: int) -> nn.Module:
        self.built.append(which)
        return (Upright, Always)[which]()


def write_images(folder: Path) -> None:
    def images(y: list[int]) -> Any:
        x = np.zeros((len(y), 2, 2), np.uint8)
        x[np.array(y) == 0, 0, 0] = x[np.array(y) == 1, 1, 1] = 255
        return x

    trained = [0, 1] * 20
    np.savez(
        folder / "dots.npz",
        x_train=images(trained),
        y_train=np.array(trained),
        x_test=images(TESTED),
        y_test=np.array(TESTED),
    )


def strategy_with(
    folder: Path, partition: str, handed: tuple[int, ...], kind: type[Random] = Groups
) -> tuple[Random, list[Client]]:
    write_images(folder)
    settings = Settings.from_run_config(
        {"dataset": "dots", "data-dir": str(folder), "partition": partition}
    )
    strategy = kind(settings, model_spec(settings, dataset_of(settings)))
    if isinstance(strategy, Groups):
        strategy.handed, strategy.built = handed, []
    clients = [
        Client(
            row=row,
            name=f"client-{row}",
            node_id=row,
            profile=profile(partition_id=row, num_partitions=4),
        )
        for row in range(4)
    ]
    return strategy, clients


def measured(strategy: Random, clients: list[Client]) -> dict[str, Any]:
    agreement = Agreement(strategy.settings)
    evaluation = server_evaluation(strategy, agreement, None, lambda: clients)
    assert evaluation is not None
    found = evaluation(1, ArrayRecord())
    assert found is not None
    return dict(found)


@pytest.mark.parametrize("partition", ["rotation:3/1+iid", "concept:3/1+iid"])
def test_two_models_and_two_domains(tmp_path: Path, partition: str) -> None:
    # Upright is right of everything where images are upright (or classes their own),
    # and of nothing elsewhere; Always is right of three and of one in four (concept),
    # or of three in both (rotation).
    strategy, clients = strategy_with(tmp_path, partition, ())
    assert isinstance(strategy, Groups)
    domains = [domain_of(strategy.settings, client.profile) for client in clients]
    [odd] = [row for row in range(4) if domains.count(domains[row]) == 1]
    first, second, third = (row for row in range(4) if row != odd)
    elsewhere = 0.75 if "rotation" in partition else 0.25
    for rows, models in (
        ({first: 1, second: 0, third: 0, odd: 1}, [0, 1, 1]),
        ({first: 0, second: 0, third: 0, odd: 0}, [0, 0]),
        ({first: 1, second: 1, third: 0, odd: 0}, [0, 0, 1]),
    ):
        strategy.handed = tuple(rows[row] for row in range(4))
        strategy.built = []
        found = measured(strategy, clients)
        own = [0.75 if rows[row] else 1.0 for row in (first, second, third)]
        own.append(elsewhere if rows[odd] else 0.0)
        assert found["served"] == pytest.approx(sum(own) / 4)
        # Three of four clients see them upright.
        assert found["server_global"] == 0.75
        assert sorted(strategy.built) == models  # once for each pair that there is


def test_counts_are_of_every_client_as_it_calls_the_classes(tmp_path: Path) -> None:
    strategy, clients = strategy_with(tmp_path, "concept:3/1+iid", (0, 0, 0, 0))
    # Three clients: three 0 and one 1, all right. One: three 1 and one 0, all wrong.
    assert measured(strategy, clients)["class_counts"] == [9, 1, 3, 3]


def test_a_strategy_with_one_model_hands_that_to_everybody(tmp_path: Path) -> None:
    strategy, clients = strategy_with(tmp_path, "rotation:2+iid", (), Random)
    found = measured(strategy, clients)
    assert found["served"] == found["server_global"]
    assert (strategy.serves(3), 0) == (0, strategy.serves(0))


def test_before_anybody_is_known_samples_are_as_they_are(tmp_path: Path) -> None:
    strategy, _ = strategy_with(tmp_path, "rotation:2+iid", ())
    found = measured(strategy, [])
    assert found["server_global"] == 1.0
    assert "served" not in found


def test_where_no_device_differs_nobody_is_asked_about(tmp_path: Path) -> None:
    strategy, clients = strategy_with(tmp_path, "iid", ())
    assert {"served"} & measured(strategy, clients).keys() == set()
