"""Fixtures of what is tested over both homes."""

from pathlib import Path

import pytest

from client_app.kept.home import Home
from tests.client_app.homes import home_of


@pytest.fixture(params=["memory", "directory"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """Return where a client keeps things."""
    return home_of(tmp_path if request.param == "directory" else "")
