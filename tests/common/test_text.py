"""What devices write, as it is shown."""

from typing import Any

import pytest

from common.text import first_line, message_of, one_line
from common.wire import QueryReply, TrainReport, WireError

QUERY: dict[str, Any] = {
    "client": "pi-0",
    "partition_id": 0,
    "num_partitions": 1,
    "num_examples": 10,
    "code_hash": "0" * 16,
    "partition_hash": "0" * 64,
}
REPORT: dict[str, Any] = {
    "server_round": 1,
    "client": "pi-0",
    "code_hash": "0" * 16,
    "num_examples": 10,
    "expert_samples": [10],
    "expert_accuracy": [0.5],
    "expert_loss": [0.7],
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Gerät 1: 40 °C", "Gerät 1: 40 °C"),
        ("\x1b[2J\x1b]0;owned\x07 fine", "?[2J?]0;owned? fine"),
        ("a\nINFO : b\r\tc", "a?INFO : b??c"),
        ("x\u202eevil\u2066\u200b", "x?evil??"),
        ("line\u2028paragraph\u2029next\x85", "line?paragraph?next?"),
        ("\ud800\ue000\x00\x9b31m", "????31m"),
        ("", ""),
        ("a" * 301, "a" * 297 + "..."),
    ],
)
def test_a_text_is_one_line_that_no_terminal_obeys(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_the_first_line_that_says_something() -> None:
    assert first_line("\n\n  OSError: no\nTraceback ...") == "OSError: no"
    assert first_line(None) == first_line(" \n") == "no reason given"
    assert len(first_line("A" * 10**7)) == 300


def test_a_message_of_several_lines_is_one() -> None:
    assert message_of(ValueError("a\n  b\x1b[31m")) == "a b?[31m"
    assert len(message_of(ValueError("x" * 10**6))) == 600


@pytest.mark.parametrize(
    "name", ["pi-0", "a", "Gerät_7.local", "x" * 100, "0", "site-3.lab"]
)
def test_names_that_a_client_may_have(name: str) -> None:
    assert QueryReply(**{**QUERY, "client": name}).client == name


@pytest.mark.parametrize(
    "name",
    ["", "pi 0", "$HOME", "a/b", "..", ".hidden", "-x", "a\nb", "\x1b[31m", "x" * 101],
)
def test_other_names_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(WireError, match="must be 1 to 100 letters, digits") as caught:
        QueryReply(**{**QUERY, "client": name})
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_what_hardware_says_of_itself_is_kept_as_one_line() -> None:
    profile = QueryReply(**QUERY, board="Pi\x00 5\n" + "x" * 200, gpu=None)
    assert profile.board is not None
    assert profile.board.startswith("Pi? 5?xx") and len(profile.board) == 100


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("train_loss", float("nan"), "train-loss is nan: must be a finite number"),
        ("train_loss", -1.0, "train-loss is -1.0: must be greater than or equal"),
        ("expert_loss", [float("inf")], "expert-loss.0 is inf"),
        ("num_examples", 10**12, "num-examples is 1000000000000"),
        ("seconds_train", float("inf"), "seconds-train is inf"),
        ("label_information", [1e300], "label-information.0 is 1e"),
        ("expert_cap", 2**53 - 1, "expert-cap is"),
        ("code_hash", "x\n\x1b[92mINFO", "code-hash is 'x.*at most 64 letters"),
    ],
)
def test_a_report_says_what_is_wrong_in_one_line(
    field: str, value: object, said: str
) -> None:
    record = {k.replace("_", "-"): v for k, v in {**REPORT, field: value}.items()}
    message = f"^TrainReport: {said}"
    with pytest.raises(WireError, match=message) as made:
        TrainReport(**{**REPORT, field: value})
    with pytest.raises(WireError, match=message) as read:
        TrainReport.from_record(record)
    assert str(made.value) == str(read.value)
    assert "\n" not in str(made.value) and "\x1b" not in str(made.value)


@pytest.mark.parametrize("key", ["surprise", "self", "cls", "x" * 10**6, "\x1b[2J\n"])
def test_an_unknown_key_is_refused_shortly(key: str) -> None:
    record = {k.replace("_", "-"): v for k, v in REPORT.items()}
    with pytest.raises(WireError) as caught:
        TrainReport.from_record({**record, key: 1})
    assert len(str(caught.value)) <= 300
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value)


def test_many_problems_are_not_all_listed() -> None:
    with pytest.raises(WireError, match=r"\(and 4 more\)"):
        TrainReport(**{**REPORT, "expert_loss": [-1.0] * 6})
