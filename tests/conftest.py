"""Fixtures and rules that every test shares."""

import os

# Before anything imports torch: two workers share two cores, and sums taken by one
# thread come out the same on every machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import socket
from pathlib import Path

import hypothesis
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# A loaded machine makes any example slow; that is no fault of what is tested.
hypothesis.settings.register_profile("expertfleet", deadline=None)
hypothesis.settings.load_profile("expertfleet")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the tests that run fleets of processes first: they take the longest."""
    items.sort(
        key=lambda item: (
            not any(map(item.get_closest_marker, ("simulation", "deployment")))
        )
    )


@pytest.fixture
def free_port() -> int:
    """A TCP port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Directory of the real data sets (``NAME.npz``), or a skip."""
    named = os.environ.get("EXPERTFLEET_SHARED")
    path = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no data sets in {path}: name their place in EXPERTFLEET_SHARED")
    return path


@pytest.fixture
def task_identity() -> None:
    """Let a test build Flower messages, which need a task to come from."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0
