"""Server and clients work out the same domain, each for itself."""

from typing import Any

import pytest
from flwr.app import Context

from client_app.session import Session
from common.data import PLAIN
from common.inline_grid import InlineGrid
from common.settings import Settings
from server_app.fleet.client_domains import domain_of
from tests.server_app.strategies.handmade import profile

CLIENTS = 8
PARTITIONS = [
    "rotation:4+dirichlet:1.0",
    "concept:3/1+classes:2",
    "rotation:2+photometric:2+concept:2",
]


def contexts(config: dict[str, Any]) -> dict[int, Context]:
    return InlineGrid(None, CLIENTS, config).contexts  # type: ignore[arg-type]


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("seed", [0, 7])
def test_both_sides_agree(partition: str, seed: int) -> None:
    config = {"partition": partition, "seed": seed}
    settings = Settings.from_run_config(config)
    found = set()
    for share, context in enumerate(contexts(config).values()):
        says = profile(partition_id=share, num_partitions=CLIENTS)
        domain = domain_of(settings, says)
        assert domain == Session(context).data.domain
        found.add(domain)
    assert len(found) > 1


@pytest.mark.parametrize(
    "config", [{}, {"task": "task.toml", "partition": "folders", "data-dir": "sites"}]
)
def test_where_no_device_differs_there_is_none(config: dict[str, Any]) -> None:
    says = profile(partition_id=0, num_partitions=CLIENTS)
    assert domain_of(Settings.from_run_config(config), says) is None


@pytest.mark.parametrize(("share", "of"), [(-1, 0), (8, 8), (0, 2**52), (0, 1), (1, 3)])
def test_a_share_that_cannot_be_is_as_it_is(share: int, of: int) -> None:
    settings = Settings.from_run_config({"partition": "rotation:4+iid"})
    assert domain_of(settings, profile(partition_id=share, num_partitions=of)) == PLAIN
