"""Rounds with differential privacy: what is released, learnt and written."""

import secrets
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message

from client_app.app import app as client_app
from common import gaussian_mechanism, wire
from common.accountant import Release, epsilon_of
from common.settings import Settings
from common.shape import dataset_of, model_spec
from server_app.merging import noisy_sums
from server_app.rounds import private_round
from server_app.run_folder.checkpoint import newest_intact
from server_app.strategies.flex_moe import FlexMoE
from tests.server_app.rounds.private_runs import SMALL, answering, placements, run
from tests.whole_runs import app_with


def test_a_record_says_what_was_spent_and_nothing_of_samples(tmp_path: Path) -> None:
    rounds, facts = run(tmp_path, noise_multiplier=8.0, delta=1e-6)
    for number, line in enumerate(rounds, 1):
        spent = epsilon_of({Release(8.0): number}, 1e-6)
        assert line["epsilon"] == line["privacy"]["epsilon"] == spent
        assert line["privacy"]["releases"] == number
        assert line["merged"] and line["server_global"] is not None
        assert line["samples"] == [0] * 4 and sum(line["load"]) == 8
        for name in ("train_loss", "client_global", "client_local", "dead_share"):
            assert line[name] is None
        for client in line["clients"]:
            assert client["replied"] and not client["expert_samples"]
            assert not client["num_examples"] and not client["held_out"]
    assert "cannot be repeated bit for bit" in facts["privacy"]["repeatable"]
    assert len(facts["privacy"]["not_covered"]) == len(private_round.ALWAYS_OPEN)
    assert all(c["num_examples"] == 1 for c in facts["clients"].values())


def test_open_reports_are_told_and_named_as_not_covered(tmp_path: Path) -> None:
    rounds, facts = run(tmp_path, private_reports="open", privacy_clip=0.01)
    assert {*private_round.IN_REPORTS} < {*facts["privacy"]["not_covered"]}
    for line in rounds:
        assert line["train_loss"] > 0 and line["client_global"] is not None
        assert line["privacy"]["share_clipped"] == 1
        assert line["privacy"]["median_norm"] == pytest.approx(0.01, rel=0.01)


def test_what_is_learnt_hangs_on_nothing_that_clients_send(tmp_path: Path) -> None:
    """Reports that say everything, of clients that do not leave anything out."""

    def boast(order: Message, reply: Message, partition: int) -> Message:
        asked = wire.decode_order(order.content)
        arrays = dict(reply.content.array_records[wire.ARRAYS])
        report = wire.TrainReport(
            server_round=asked.server_round,
            client=f"client-{partition}",
            code_hash=codes[0],
            num_examples=1,
            expert_samples=[1] + [0] * (len(asked.experts) - 1),
            expert_accuracy=[float(partition % 2)] * len(asked.experts),
            expert_loss=[float(partition)] * len(asked.experts),
        )
        return Message(wire.encode_report(report, arrays), reply_to=order)

    quiet, facts = run(tmp_path / "quiet", num_rounds=4, fitness_rate=1.0)
    codes = [facts["code_hash"]]
    loud, _ = run(tmp_path / "loud", answering(boast), num_rounds=4, fitness_rate=1.0)
    assert placements(quiet) == placements(loud)
    assert all(not line["rejected"] for line in loud)
    public, _ = run(tmp_path / "public", privacy="none", num_rounds=4, fitness_rate=1.0)
    assert placements(quiet) != placements(public)


def test_a_device_says_nothing_of_its_samples(tmp_path: Path) -> None:
    heard: list[wire.TrainReport] = []
    asked: list[wire.QueryReply] = []

    def query(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        asked.append(wire.decode_query_reply(reply.content))
        return reply

    def train(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        order = wire.decode_order(message.content)
        packing = wire.Packing()
        assert order.evaluate
        heard.append(wire.decode_report(reply.content, packing)[0])
        return reply

    run(tmp_path, app_with(query=query, train=train), num_rounds=1)
    assert len(heard) == len(asked) == 4
    for report in heard:
        held = len(report.expert_samples)
        assert report.num_examples == 1 and report.expert_samples == [0] * held
        assert report.expert_accuracy == report.expert_loss == [0.0] * held
        assert (report.train_loss, report.client_global, report.metrics) == (
            0,
            None,
            {},
        )
        assert report.client_local is None and not report.local_counts
    for profile in asked:
        assert profile.num_examples == profile.rows == 1
        assert not profile.per_class and not profile.moments_count


def test_parts_move_by_clipped_sums_over_those_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the noise, by hand; one client fails and one sends what is refused."""
    monkeypatch.setattr(gaussian_mechanism, "gaussian", lambda size, _: np.zeros(size))
    sent: dict[int, dict[str, Any]] = {}
    planned: Counter[str] = Counter()

    def watched(order: Message, reply: Message, partition: int) -> Message:
        asked = wire.decode_order(order.content)
        planned.update(asked.returned_parts())
        if partition == 0:
            raise OSError("mains flicker")
        if partition == 1:
            bad = wire.pack(
                {
                    part: np.full(array.shape, np.nan, np.float32)
                    for part, array in reply.content.array_records[wire.ARRAYS].items()
                }
            )
            report, _ = wire.decode_report(reply.content, wire.Packing())
            return Message(wire.encode_report(report, bad), reply_to=order)
        _, deltas = wire.decode_report(reply.content, wire.Packing())
        sent[partition] = {part: np.array(v, np.float64) for part, v in deltas.items()}
        return reply

    clip = 0.05
    settings: dict[str, Any] = {"num-rounds": 1, "min-replies": 4, "privacy-clip": clip}
    changes = {key.replace("-", "_"): value for key, value in settings.items()}
    [line], _ = run(tmp_path, answering(watched), **changes)
    assert line["merged"] and len(line["rejected"]) == 2 and len(sent) == 2
    config = Settings.from_run_config({**SMALL, **settings})
    strategy = FlexMoE(config, model_spec(config, dataset_of(config)))
    [folder] = tmp_path.iterdir()
    found = newest_intact(folder)
    assert found is not None
    norms = [np.linalg.norm(np.concatenate([*v.values()])) for v in sent.values()]
    assert norms == pytest.approx([clip, clip], rel=2e-3)  # the device has clipped
    for part, before in strategy.model.items():
        total = sum(
            (deltas[part] for deltas in sent.values() if part in deltas),
            np.zeros(before.size),
        )
        expected = before + total / max(1, planned[part])
        np.testing.assert_allclose(found[1]["model"][part], expected, atol=1e-7)


def test_who_rests_hangs_on_nothing_that_was_sent(tmp_path: Path) -> None:
    """A training that diverges is an error, and may not change what others hold."""

    def diverges(order: Message, reply: Message, partition: int) -> Message:
        if partition == 0:
            raise FloatingPointError("training diverged")
        return reply

    app, rounds = answering(diverges), 4
    private_run, _ = run(tmp_path / "private", app, num_rounds=rounds)
    assert all("client-0" in held for held in placements(private_run))
    whole, _ = run(tmp_path / "whole", num_rounds=rounds)
    assert placements(private_run) == placements(whole)
    public, _ = run(tmp_path / "public", app, num_rounds=rounds, privacy="none")
    assert "client-0" not in placements(public)[2]


def test_clients_are_drawn_in_secret_and_planned_for_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaussian_mechanism, "gaussian", lambda size, _: np.zeros(size))
    expected: list[dict[str, float]] = []
    expect = noisy_sums.PrivateSums.expect

    def watched(self: Any, sizes: Any, holders: dict[str, float]) -> None:
        expected.append(dict(holders))
        expect(self, sizes, holders)

    monkeypatch.setattr(noisy_sums.PrivateSums, "expect", watched)
    coins = iter([*[0, 2**53 - 1, 0, 2**53 - 1], *[2**53 - 1] * 4, *[0] * 4])
    monkeypatch.setattr(secrets, "randbelow", lambda _: next(coins))
    rounds, _ = run(tmp_path, num_rounds=3, sampling_rate=0.5)
    asked = [[client["client"] for client in line["clients"]] for line in rounds]
    assert [len(names) for names in asked] == [2, 0, 4]
    assert not any(line["rejected"] for line in rounds)
    for holders in expected:  # of all four, by the chance of each
        assert holders["extractor"] == 2.0
        assert sum(holders.values()) == 2.0 + 4 * 2 * 0.5
    spent = epsilon_of({Release(5.0, 0.5): 3}, 1e-5)
    assert rounds[-1]["epsilon"] == spent
    # The plan of the third round is that of a run in which all were asked before.
    other = tmp_path / "all"
    coins = iter([0] * 12)
    everybody, _ = run(other, num_rounds=3, sampling_rate=0.5)
    assert placements(everybody)[2] == placements(rounds)[2]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_uploads_in_few_bytes_are_private_too(tmp_path: Path, dtype: str) -> None:
    rounds, _ = run(tmp_path, upload_dtype=dtype, num_rounds=3)
    assert all(not line["rejected"] for line in rounds)
    assert rounds[-1]["privacy"]["releases"] == 3
