"""Fixtures and rules that every test shares."""

import os

# Before anything imports torch: two workers share two cores, and sums taken by one
# thread come out the same on every machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Who is started in the background of a script ignores Ctrl-C, and by nohup the end of
# its terminal; so do its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# `make test` tries few examples, new ones every time: whoever works on the code goes on
# searching. `make test-all` tries many, the same ones every time: it decides what is
# accepted, and that must not depend on luck. A loaded machine makes any example slow;
# that is no fault of what is tested.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=20)
hypothesis.settings.register_profile(
    "thorough", deadline=None, max_examples=100, derandomize=True
)
hypothesis.settings.load_profile("quick")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start real simulations last: on a busy machine Ray does not start in its 30 s.

    In `make test-all` the fleets, which run beside all others, are over by then.
    """
    last = [item for item in items if item.get_closest_marker("simulation")]
    first = [item for item in items if not item.get_closest_marker("simulation")]
    # Backwards by file: the one that takes longest then begins before the others.
    items[:] = first + sorted(last, key=lambda item: str(item.path), reverse=True)


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Nobody cuts the power of a test: what it writes need not reach the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a test computes is kept for the next session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


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
