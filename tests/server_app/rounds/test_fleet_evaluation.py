"""The server's predictor measured by devices: the sum is one pooled test set's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client_app.app import app as client_app
from client_app.session import Session
from common import wire
from common.inline_grid import InlineGrid
from common.settings import Settings
from common.shape import dataset_of, model_spec
from server_app.rounds.loop import RoundLoop
from server_app.rounds.record import RoundRecord
from server_app.run_folder.base_file import with_base
from server_app.strategies import find_strategy
from tests.checkpoints import Devices, without_weights
from tests.server_app.run_folder.test_base_file import config_of as config_of_texts
from tests.whole_runs import app_with

CLIENTS = 4
CONFIG: dict[str, Any] = {
    "num-rounds": 2,
    "num-experts": 3,
    "local-epochs": 1,
    "train-samples": 200,
    "partition": "classes:4",
}
Change = Callable[[RecordDict], None]


def predictor_of(loop: RoundLoop) -> torch.nn.Module:
    found = loop.strategy.global_model()
    assert found is not None
    return found.eval()


class Looking:
    """Keeps the records that a loop shows."""

    stopped: str | None = None

    def __init__(self) -> None:
        self.records: list[RoundRecord] = []

    def open(self, *_: Any) -> None: ...

    def tell(self, **_: Any) -> None: ...

    def stop(self, why: str) -> None: ...

    def show(self, record: RoundRecord, strategy: Any) -> None:
        self.records.append(record)


def run(
    grid: InlineGrid, *, by_fleet: bool = True, timeout: float = 60.0
) -> tuple[RoundLoop, list[RoundRecord]]:
    """Train over a grid; return the loop after it, and its records."""
    settings = Settings.from_run_config(config_of(grid))
    spec = with_base(model_spec(settings, dataset_of(settings)), settings)
    loop = RoundLoop(find_strategy(settings.run.strategy)(settings, spec))
    loop._measuring.by_devices = by_fleet
    seen = Looking()
    loop._log = seen
    loop.run(grid, settings.rounds.num_rounds, timeout, None)
    return loop, seen.records


def config_of(grid: InlineGrid) -> dict[str, Any]:
    return dict(grid.contexts[1].run_config)


def grid_of(app: ClientApp = client_app, **changes: Any) -> InlineGrid:
    config = {**CONFIG, **{key.replace("_", "-"): v for key, v in changes.items()}}
    return InlineGrid(app, CLIENTS, config, serialise=True)


def pooled(grid: InlineGrid, loop: RoundLoop, nodes: list[int]) -> list[list[int]]:
    """Count the answers to the held-out samples of some clients, put together."""
    predictor, found = predictor_of(loop), np.zeros((10, 10), int)
    for node in nodes:
        x, y = Session(grid.contexts[node]).held_out_tensors()
        with torch.no_grad():
            answers = predictor(x).argmax(1)
        np.add.at(found, (y.numpy(), answers.numpy()), 1)
    matrix: list[list[int]] = found.tolist()
    return matrix


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        ("flex-moe", {}),
        (
            "flex-moe-plus",
            {"reserved-samples": 40, "strategy-options": "gate-epochs=1"},
        ),
        ("fedmix", {}),
        ("hfedmoe", {}),
        ("fedjets", {}),
        ("cent-moe", {"reserved-samples": 40}),
        ("fedrolex", {}),
        ("kin", {"num-experts": 4, "partition": "concept:2+iid"}),
        ("flwr:FedAvg", {}),
    ],
)
def test_the_sum_is_that_of_one_pooled_test_set(
    strategy: str, more: dict[str, Any]
) -> None:
    grid = grid_of(strategy=strategy, **more)
    loop, records = run(grid)
    last = records[-1]
    assert last.confusion is not None
    assert last.confusion.tolist() == pooled(grid, loop, [1, 2, 3, 4])
    right = int(last.confusion.trace())
    assert last.fleet == right / last.confusion.sum()
    assert last.fleet_clients == [f"client-{n}" for n in range(4)]
    assert last.server_global is None
    # Every part went to every client, in float32.
    vectors = predictor_of(loop).state_dict().values()
    assert last.fleet_bytes > CLIENTS * 4 * sum(v.numel() for v in vectors)


def test_measuring_moves_no_bit_of_the_training() -> None:
    models: list[Any] = []
    for by_fleet in (True, False):
        loop, records = run(
            grid_of(expert_cache=True, upload_dtype="int8"), by_fleet=by_fleet
        )
        assert (records[-1].fleet is not None) == by_fleet
        assert (records[-1].fleet_clients is not None) == by_fleet
        models.append(b"".join(v.tobytes() for v in loop.strategy.model.values()))
        bytes_of = [(r.bytes_down, r.bytes_up) for r in records]
        models.append(bytes_of)
    assert models[:2] == models[2:]


def test_rounds_between_evaluations_ask_nobody() -> None:
    _, records = run(grid_of(eval_every=3, num_rounds=4))
    assert [r.fleet is not None for r in records] == [False, False, True, True]
    assert [bool(r.fleet_bytes) for r in records] == [False, False, True, True]
    assert records[0].fleet_clients == []


def test_a_device_that_is_too_small_is_not_asked() -> None:
    grid = grid_of()
    grid.contexts[2].node_config["expert-cap"] = 2
    grid.contexts[3].node_config["expert-cap"] = 3
    loop, records = run(grid)
    last = records[-1]
    assert last.fleet_clients == ["client-0", "client-2", "client-3"]
    assert last.confusion is not None
    assert last.confusion.tolist() == pooled(grid, loop, [1, 3, 4])


def notes(records: list[RoundRecord]) -> list[str]:
    return [n for r in records for n in r.notes if n.startswith("fleet")]


def test_where_nobody_can_hold_it_that_is_said_once() -> None:
    grid = grid_of()
    for context in grid.contexts.values():
        context.node_config["expert-cap"] = 1
    _, records = run(grid)
    assert [r.fleet for r in records] == [None, None]
    assert [r.merged for r in records] == [True, True]
    assert notes(records) == ["fleet is not measured: no device can hold all experts"]


def test_a_predictor_of_another_kind_is_not_measured_and_that_is_said_once() -> None:
    _, records = run(grid_of(strategy="fed-moe", reserved_samples=40))
    assert [r.fleet for r in records] == [None, None]
    [said] = notes(records)
    assert "'fed-moe' is one of its own, which devices cannot build" in said


def test_classes_that_are_private_are_not_told_apart() -> None:
    grid = grid_of(private_counts=True)
    loop, records = run(grid)
    last, matrix = records[-1], np.array(pooled(grid, loop, [1, 2, 3, 4]))
    assert last.fleet == matrix.trace() / matrix.sum()
    assert (last.recall, last.balanced, last.confusion) == (None, None, None)
    assert (last.local_recall, last.local_balanced) == (None, None)
    assert last.to_json()["client_local_weighted"] is not None


def lying(client: str, change: Change) -> ClientApp:
    """Return the real ClientApp with one client's measurements changed."""

    def evaluate(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        if client == f"client-{context.node_config['partition-id']}":
            change(reply.content)
        return reply

    return app_with(evaluate=evaluate)


def said_of(content: RecordDict, **fields: Any) -> None:
    record = content.config_records[wire.REPORT]
    for name, value in fields.items():
        record[name.replace("_", "-")] = value


def drop(content: RecordDict) -> None:
    for key in list(content):
        del content[key]


def fail(content: RecordDict) -> None:
    raise MemoryError("too small after all")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda c: said_of(c, counts=[1] * 99), "99 counts of 10 classes"),
        (lambda c: said_of(c, counts=[1, 2]), "do not tell classes apart"),
        (lambda c: said_of(c, counts=[-1] + [1] * 99), "counts"),
        (lambda c: said_of(c, counts=[10**9] * 100), "it said that it holds out"),
        (lambda c: said_of(c, counts=[0] * 10**5), "at most"),
        (lambda c: said_of(c, counts=["a"] * 100), "counts"),
        (lambda c: said_of(c, client="client-0"), "calls itself 'client-0'"),
        (lambda c: said_of(c, server_round=7), "for round 7"),
        (lambda c: said_of(c, code_hash="abc"), "runs other code"),
        (lambda c: said_of(c, more=1), "more"),
        (drop, "no report record"),
        (fail, "too small after all"),
    ],
)
def test_an_answer_that_cannot_be_counted_costs_nothing_but_itself(
    change: Change, why: str
) -> None:
    grid = grid_of(lying("client-1", change), num_rounds=1)
    loop, records = run(grid)
    [last] = records
    assert last.confusion is not None
    assert last.confusion.tolist() == pooled(grid, loop, [1, 3, 4])
    [said] = notes(records)
    assert said.startswith("fleet is without client-1: ") and why in said
    assert len(said) < 400


class Deaf(InlineGrid):
    """A grid in which one node never answers to be measured."""

    def push_messages(self, messages: Any) -> list[str]:
        kept, ids = [*messages], super().push_messages([*messages])
        for message, number in zip(kept, ids, strict=True):
            about = message.metadata
            if about.message_type == "evaluate" and about.dst_node_id == 2:
                del self._pending[number]
        return ids


def test_who_never_answers_holds_the_run_up_until_the_deadline_and_no_longer() -> None:
    grid = Deaf(client_app, CLIENTS, {**CONFIG, "num-rounds": 2})
    loop, records = run(grid, timeout=0.5)
    assert len(records) == 2 and all(r.merged for r in records)
    assert records[-1].confusion is not None
    assert records[-1].confusion.tolist() == pooled(grid, loop, [1, 3, 4])
    assert notes(records) == ["fleet is without client-1: no reply in time"] * 2


def test_a_frozen_base_is_not_sent_again_to_measure_unless_it_was_lost(
    tmp_path: Path,
) -> None:
    config = {**config_of_texts(tmp_path, "bert"), "num-rounds": 2}
    lacking = without_weights(config["pretrained"], tmp_path / "lacking")
    devices = Devices({node: {"pretrained": lacking} for node in (1, 2, 3)})
    forgetful, answer = {2}, devices._answer

    def forgetting(message: Message, context: Context) -> Message:
        kind = message.metadata.message_type
        if kind == "evaluate" and context.node_id in forgetful:
            forgetful.remove(context.node_id)
            context.state.config_records.pop("store//bases")
        return answer(message, context)

    devices._answer = forgetting  # type: ignore[method-assign]
    _, records = run(InlineGrid(devices.app, 3, config))
    assert all(r.fleet is not None and not notes([r]) for r in records)
    kinds = [
        (message.metadata.message_type, number, node)
        for number, node, message in devices.down
        if number == "1"
    ]
    pieces = [node for kind, _, node in kinds if kind == wire.PIECE_MESSAGE]
    assert pieces == [1, 2, 3, 2]
    assert not any(
        m.metadata.message_type == wire.PIECE_MESSAGE
        for number, _, m in devices.down
        if number == "2"
    )


def test_where_the_server_cannot_predict_nobody_is_asked() -> None:
    grid = InlineGrid(client_app, CLIENTS, {**CONFIG, "strategy": "local"})
    _, records = run(grid)
    for record in records:
        assert (record.fleet, record.fleet_clients, record.fleet_bytes) == (None, [], 0)
        assert record.mean("client_local") is not None
    told = [note for record in records for note in record.notes if "no model" in note]
    assert told == [
        "with strategy local the server has no model: clients have their own"
    ]
