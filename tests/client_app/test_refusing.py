"""A device that cannot take part says why, with its name, and sends no traceback."""

import logging
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict

from client_app.app import app as client_app
from client_app.refusing import name_of
from common import wire
from common.inline_grid import InlineGrid
from common.task import read_task
from tests.client_app.homes import context_of


def asked(node_config: dict[str, Any], of: str = "", **run_config: Any) -> Message:
    """Return a device's answer to a query."""
    config = {key.replace("_", "-"): value for key, value in run_config.items()}
    grid = InlineGrid(client_app, 1, config)
    grid.contexts[1].node_config = node_config
    content = wire.encode_query(wire.Query(task=of)) if of else RecordDict()
    query = Message(content, 1, "query")
    return next(iter(grid.send_and_receive([query])))


def refusal_of(reply: Message) -> wire.Refusal:
    assert not reply.has_error()
    found = wire.decode_refusal(reply.content)
    assert found is not None
    return found


SHARE = {"partition-id": 0, "num-partitions": 2}


def test_settings_and_data_that_cannot_be_used_are_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = refusal_of(
        asked({**SHARE, "name": "cam"}, dataset="none", data_dir=str(tmp_path))
    )
    assert said.client == "cam"
    assert "'none'" in said.reason
    assert "\n" not in said.reason and "Traceback" not in said.reason
    # Its owner reads it on the device as well.
    assert f"this device cannot take part: {said.reason}" in caplog.messages

    said = refusal_of(asked({**SHARE, "name": "cam", "expert-cap": -1}))
    assert said.client == "cam"
    assert said.reason.startswith("node configuration: expert-cap = -1 is not allowed")


def test_a_device_that_can_take_part_answers_as_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "flwr.expertfleet"):
        reply = asked({**SHARE, "name": "cam"})
    assert wire.decode_refusal(reply.content) is None
    assert wire.decode_query_reply(reply.content).client == "cam"
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("node_config", "name"),
    [
        ({**SHARE, "name": "cam"}, "cam"),
        (SHARE, "client-0"),
        ({}, "node-1"),
        ({"name": "cam", "partition-id": 3}, "cam"),
        ({"name": "c a m"}, ""),
        ({"partition-id": 3}, ""),
    ],
)
def test_a_refusal_has_whatever_name_there_is(
    node_config: dict[str, Any], name: str
) -> None:
    assert name_of(context_of(node_config)) == name
    assert wire.Refusal(client=name, reason="r").client == name


def test_a_fault_of_the_program_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client_app.app.checkpoint_hash", lambda _: 1 / 0)
    reply = asked({**SHARE, "name": "cam"})
    assert reply.has_error()
    assert wire.error_of(reply).startswith("error 2: ZeroDivisionError")


def test_a_virtual_client_with_a_folder_goes_by_its_name(tmp_path: Path) -> None:
    text = 'kind = "table"\nclasses = ["a", "b"]\ncolumns = ["x"]\n'
    (tmp_path / "task.toml").write_text(text)
    for site in ("east", "west"):
        (tmp_path / "sites" / site).mkdir(parents=True)
    config = {
        "task": str(tmp_path / "task.toml"),
        "data_dir": str(tmp_path / "sites"),
        "partition": "folders",
    }
    task = read_task(tmp_path / "task.toml").to_json()
    share = {"partition-id": 1, "num-partitions": 2}
    said = refusal_of(asked(share, task, **config))
    assert said.client == "west" and "it is empty" in said.reason
    # Not as many folders as clients: nobody's is known.
    said = refusal_of(asked({**share, "num-partitions": 3}, task, **config))
    assert said.client == "client-1"
