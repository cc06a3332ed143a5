"""Where a run's log goes: the table apart, colours where they are seen."""

import io
import logging

import pytest

from server_app.launcher.log import PlainLog, show_line


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_a_log_that_cannot_be_written_ends_no_run(
    level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[OSError] = [OSError(28, "No space left on device"), BrokenPipeError()]

    class Broken(io.StringIO):
        def write(self, _: str) -> int:
            raise raised.pop(0)

    name = "flwr.expertfleet" + ("" if level > logging.INFO else ".table")
    monkeypatch.setattr(
        "sys.stderr" if level > logging.INFO else "sys.stdout", Broken()
    )
    told = {"msg": "round 1", "levelno": level, "levelname": "?", "name": name}
    record = logging.makeLogRecord(told)
    PlainLog().emit(record)
    with pytest.raises(BrokenPipeError):  # `head` has seen enough
        PlainLog().emit(record)


LOG = [
    "Strategy: flex-moe",
    "round  server balanced",
    "    1  0.1967   0.1810",
    "   12       -        -",
    "      not merged: client-3: NaN",
    "WARNING :   drop-out = 0.9 leaves 2 replies",
    "round 1 ids [0, 1] cwd /tmp/x",
    "results: /tmp/results/x",
]
TABLE = [LOG[1], LOG[2], LOG[3], LOG[7]]


def test_of_a_log_from_elsewhere_the_table_alone_goes_to_stdout(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for line in LOG:
        show_line(line, quiet=False)
    out, err = capsys.readouterr()
    assert out.splitlines() == TABLE
    rest = [line for line in LOG if line not in TABLE]
    assert err.splitlines() == [line.replace(" :   ", ": ") for line in rest]


def test_quiet_leaves_warnings_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for line in LOG:
        show_line(line, quiet=True)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "WARNING: drop-out = 0.9 leaves 2 replies\n")


@pytest.mark.parametrize(
    ("env", "coloured"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_are_where_they_are_wanted(
    env: dict[str, str],
    coloured: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TERM", "xterm-256color")
    for line in LOG:
        show_line(line, quiet=False)
    out, err = capsys.readouterr()
    assert ("\x1b[33m" in err) == coloured  # yellow
    assert "\x1b" not in out  # the table is for other programs as well
