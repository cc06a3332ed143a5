"""An operator with a fleet of their own, and a clock that can be turned.

The clock is turned back while a fleet is made, so that its certificates have really
ended for the TLS library that is asked afterwards.
"""

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest

from server_app.provisioning import certificates
from tests.server_app.provisioning.fleet_operator import Operator


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(tmp_path / "fleet", capsys)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    real = certificates.now

    def turn(days: float) -> None:
        shift = datetime.timedelta(days=days)
        monkeypatch.setattr(certificates, "now", lambda: real() + shift)

    return turn
