"""What is said in the log of devices that join with data of their own."""

from pathlib import Path

import numpy as np
import pytest

from tests.server_app.fleet.joining import (
    NAMES,
    begin,
    scale,
    server_of,
    town_of,
)
from tests.server_app.fleet.own import device, windows


def test_a_range_that_differs_tenfold_is_told_with_the_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    town = town_of(*NAMES)
    town.says[3] = device("cam-west", windows(2) * np.float32(9.8))
    server = server_of(town, tmp_path)
    assert begin(server) == [*NAMES]
    notes = server.fleet.take_notes()
    [note] = [each for each in notes if "tenfold" in each]
    assert note.startswith(
        "cam-west: its range differs tenfold from the fleet's: its channel 'ax' is from"
    )
    assert note in caplog.messages
    assert server.fleet.take_notes() == []


def test_what_a_device_says_of_its_data_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    town = town_of(*NAMES, warnings=["values far from 0 +- 1 after scaling: ax"])
    server = server_of(town, tmp_path)
    begin(server)
    begin(server, 2)
    town.activated[3] = "2026-01-02T00:00:00Z"
    begin(server, 3)
    told = "cam-west: values far from 0 +- 1 after scaling: ax"
    assert caplog.messages.count(told) == 1
    assert server.fleet.take_notes() == [told]


def test_the_log_says_on_how_much_each_trains(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    town = town_of(*NAMES, unreadable=3, data_format="png, jpg")
    server = server_of(town, tmp_path)
    with caplog.at_level("INFO", "flwr.expertfleet"):
        begin(server)
    assert (
        "trains on 40 of 50 rows of cam-west (png, jpg), 3 unreadable; none of fall"
        in caplog.messages
    )
    [line] = [each for each in caplog.messages if each.startswith("scale of this run")]
    assert "of the 120 training samples of 3 devices: ax 2.9" in line
    facts = server.fleet.facts()
    said = facts["clients"]["cam-west"]
    assert (said["num_examples"], said["rows"], said["unreadable"]) == (40, 50, 3)
    assert said["per_class"] == [40, 10, 0]
    assert not any(key.startswith("moments") for key in said)
    assert facts["task"]["scale"]["mean"] == list(scale(server.fleet).mean)


def test_many_that_join_at_once_are_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = server_of(town_of(*(f"c{n:02}" for n in range(60))), tmp_path)
    with caplog.at_level("INFO", "flwr.expertfleet"):
        begin(server)
    lines = [each for each in caplog.messages if "rows" in each]
    assert lines == [
        "60 clients with data of their own join: they train on 2400 of 3000 rows, 0 "
        "unreadable"
    ]
