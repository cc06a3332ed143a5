"""One fleet of containers for all tests; they run only when asked for."""

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.containers.demo import ROOT, Demo

MEASURED = pytest.StashKey[dict[str, dict[str, float]]]()
"""What the tests measured: name and value, by unit."""


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Building images takes long: ``-m containers`` has to be said."""
    if "containers" not in config.getoption("markexpr"):
        mark = pytest.mark.skip(reason="run by `make test-containers`")
        for item in items:
            if item.path.is_relative_to(ROOT / "tests" / "containers"):
                item.add_marker(mark)


@pytest.fixture(scope="session")
def engine() -> None:
    """Docker with compose and buildx, or a skip that says what is missing."""
    if not shutil.which("docker"):
        pytest.skip("there is no `docker` on PATH")
    for command in (["version"], ["compose", "version"], ["buildx", "version"]):
        ran = subprocess.run(
            ["docker", *command], capture_output=True, text=True, timeout=60
        )
        if ran.returncode:
            pytest.skip(f"`docker {' '.join(command)}` says: {ran.stderr.strip()}")


@pytest.fixture(scope="session")
def demo(
    engine: None,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Demo]:
    """The demo fleet, all devices online."""
    demo = Demo(tmp_path_factory.mktemp("keys"))
    measured: dict[str, dict[str, float]] = {"s": demo.seconds, "MB peak": demo.peaks}
    request.config.stash[MEASURED] = measured
    demo.stop()  # what an interrupted run left
    try:
        demo.build()
        measured["MB image"] = demo.sizes()
        demo.start()
        yield demo
    finally:
        demo.stop()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what was measured, whether or not the tests passed."""
    if measured := config.stash.get(MEASURED, None):
        terminalreporter.section("measured in containers")
        for unit, values in measured.items():
            for name, value in values.items():
                terminalreporter.write_line(f"{value:9.1f} {unit:9} {name}")
