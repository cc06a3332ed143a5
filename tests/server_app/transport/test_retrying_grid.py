"""An outage of the SuperLink, as its clients see it, and calls that outlast it."""

import socket
import threading
import time
from collections.abc import Iterable, Iterator

import httpx
import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectPushError
from flwr.superlink.grid.http_grid import HttpGrid

from client_app.app import app as client_app
from common.inline_grid import InlineGrid
from server_app.transport import retrying_grid
from server_app.transport.retrying_grid import PatientGrid


@pytest.fixture
def dying_server() -> Iterator[str]:
    """Address of a server that hangs up in the middle of every TLS handshake."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def hang_up() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1 << 16)

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=10)


def test_flower_gives_up_at_once_when_a_handshake_breaks_off(dying_server: str) -> None:
    # The reason for this module: should Flower try on one day, it can go.
    grid = HttpGrid(runtime_api_address=dying_server, token="token")
    with pytest.raises(httpx.ConnectError, match=r"SSL|EOF"):
        grid.get_node_ids()
    grid.close()


class FlakyGrid(InlineGrid):
    """Fails its first calls as a Grid does whose SuperLink has died."""

    def __init__(self, failures: int) -> None:
        super().__init__(client_app, 2, {})
        self.failures = failures
        self.error: Exception = httpx.ConnectError("EOF in violation of protocol")

    def _maybe_fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise self.error

    def get_node_ids(self) -> list[int]:
        self._maybe_fail()
        return super().get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        self._maybe_fail()
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        self._maybe_fail()
        return super().pull_messages(message_ids)


def test_calls_are_tried_until_the_superlink_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrying_grid, "PAUSE_SECONDS", 0.0)
    flaky = FlakyGrid(3)
    grid = PatientGrid(flaky)
    assert list(grid.get_node_ids()) == [1, 2]

    flaky.failures = 2
    assert [node.node_id for node in grid.get_nodes()] == [1, 2]

    flaky.failures = 2
    sent = iter([Message(RecordDict(), 1, "query", group_id="query")])
    ids = list(grid.push_messages(sent))

    flaky.failures = 2
    [reply] = grid.pull_messages(iter(ids))
    assert reply.metadata.reply_to_message_id == ids[0]


def test_nothing_is_kept_of_messages_that_were_answered() -> None:
    grid = PatientGrid(FlakyGrid(0), {"query": 10})
    sent = [Message(RecordDict(), node, "query", group_id="query") for node in (1, 2)]
    ids = list(grid.push_messages(sent))
    assert len(grid._types) == 2
    for left in (1, 0):  # this grid answers one at a time
        list(grid.pull_messages(ids))
        assert len(grid._types) == left


def test_a_session_that_a_new_superlink_does_not_know_is_opened_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrying_grid, "PAUSE_SECONDS", 0.0)
    flaky = FlakyGrid(2)
    flaky.error = ObjectPushError("object", 1, "session")
    grid = PatientGrid(flaky)
    ids = list(
        grid.push_messages([Message(RecordDict(), 1, "query", group_id="query")])
    )

    flaky.failures, flaky.error = 2, ObjectPullError("object", "it is gone")
    [reply] = grid.pull_messages(ids)
    assert reply.metadata.reply_to_message_id == ids[0]


def test_an_outage_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(httpx.ConnectError):
        PatientGrid(FlakyGrid(10_000)).get_node_ids()
    assert retrying_grid.OUTAGE_SECONDS < now < retrying_grid.OUTAGE_SECONDS + 5
