"""What a private run pays for: rounds that fail, a run that goes on, a full disk."""

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from common import wire
from common.accountant import Release, epsilon_of
from server_app.merging import noisy_sums
from server_app.strategies import ExpertStrategy
from tests.server_app.rounds.private_runs import (
    answering,
    run,
)


def test_training_stops_before_the_round_that_would_cost_too_much(
    tmp_path: Path,
) -> None:
    most = epsilon_of({Release(5.0): 2}, 1e-5) + 0.01
    rounds, facts = run(tmp_path, num_rounds=5, max_epsilon=most)
    assert [line["round"] for line in rounds] == [1, 2]
    assert rounds[-1]["epsilon"] <= most
    assert facts["stopped"].startswith("the privacy budget is spent: epsilon is")


def test_a_round_in_which_nobody_answers_is_released_and_paid_for(
    tmp_path: Path,
) -> None:
    def silent(order: Message, reply: Message, partition: int) -> Message:
        raise OSError("mains flicker")

    rounds, _ = run(tmp_path, answering(silent), num_rounds=2)
    assert [line["privacy"]["releases"] for line in rounds] == [1, 2]
    assert all(line["merged"] and len(line["rejected"]) == 4 for line in rounds)


def test_a_round_of_replies_that_are_refused_is_released_all_the_same(
    tmp_path: Path,
) -> None:
    def broken(order: Message, reply: Message, partition: int) -> Message:
        report, deltas = wire.decode_report(reply.content, wire.Packing())
        bad = wire.pack({part: v * np.float32("nan") for part, v in deltas.items()})
        return Message(wire.encode_report(report, bad), reply_to=order)

    rounds, _ = run(tmp_path, answering(broken), num_rounds=3)
    assert [line["privacy"]["releases"] for line in rounds] == [1, 2, 3]
    for line in rounds:
        assert line["merged"] and len(line["rejected"]) == 4 and not line["refused"]
        assert not any("collapsed" in note for note in line["notes"])


def test_what_was_released_and_not_kept_is_paid_for_when_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = ExpertStrategy.finish
    times = []

    def dies(self: ExpertStrategy) -> None:
        finish(self)
        times.append(1)
        if len(times) == 2:
            raise KeyboardInterrupt

    # As a subclass would be refused, the class itself is changed.
    monkeypatch.setattr(ExpertStrategy, "finish", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, num_rounds=3)
    [folder] = tmp_path.iterdir()
    paid = (folder / "privacy.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in paid] == [1, 2]
    rounds, _ = run(tmp_path, num_rounds=3, resume_from=str(folder))
    assert [line["privacy"]["releases"] for line in rounds] == [1, 3, 4]
    # Who deletes what was written goes on from the checkpoint's word.
    (folder / "privacy.jsonl").unlink()
    rounds, _ = run(tmp_path, num_rounds=4, resume_from=str(folder))
    assert rounds[-1]["privacy"]["releases"] == 5


def test_a_charge_that_cannot_be_written_releases_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, line: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("server_app.run_folder.folder.append_charge", full)
    monkeypatch.setattr(
        noisy_sums, "noise_units", lambda *_: pytest.fail("noise was drawn")
    )
    with pytest.raises(RuntimeError, match=r"privacy\.jsonl cannot be kept"):
        run(tmp_path)
