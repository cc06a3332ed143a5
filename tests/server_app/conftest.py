"""What the tests of the server share."""

import pytest

from server_app.rounds import selection
from server_app.transport import mailbox


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody be waited for between two looks."""
    monkeypatch.setattr(selection, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(mailbox, "POLL_SECONDS", 0.0)
