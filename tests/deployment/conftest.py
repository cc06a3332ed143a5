"""One fleet for all tests: starting it takes longer than using it."""

from collections.abc import Iterator

import pytest

from tests.deployment.fleet import Fleet


@pytest.fixture(scope="session")
def running_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture
def fleet(running_fleet: Fleet) -> Fleet:
    """A SuperLink, its SuperExec and three devices, all of them up."""
    running_fleet.repair()
    return running_fleet
