"""One fleet of containers for all tests; they run only when asked for."""

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.containers.demo import ROOT, Demo


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
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    demo.stop()  # what an interrupted run left
    try:
        demo.build()
        demo.start()
        yield demo
        figures = {
            "s": demo.seconds,
            "MB image": demo.sizes(),
            "MB peak": demo.peaks(),
        }
        for unit, values in figures.items():
            for name, value in values.items():
                reporter.write_line(f"{name:28} {value:9.1f} {unit}")
    finally:
        demo.stop()
