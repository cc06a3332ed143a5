"""The round loop over the in-process grid: bad replies, determinism, the run log."""

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from safetensors.numpy import load_file

from client_app.app import app as client_app
from common import wire
from common.inline_grid import InlineGrid
from common.settings import Settings
from common.shape import dataset_of, model_spec
from server_app.app import app as server_app
from server_app.contract import Plan
from server_app.rounds.loop import RoundLoop
from server_app.rounds.orders import LOSSES
from server_app.run_error import RunError
from server_app.strategies.base import ExpertStrategy
from server_app.strategies.flex_moe import FlexMoE
from server_app.transport import pings

CLIENTS = 6


def settings_of(**changes: Any) -> dict[str, Any]:
    return {"num-rounds": 3, "num-experts": 4, "local-epochs": 1, **changes}


def strategy_of(config: dict[str, Any]) -> ExpertStrategy:
    settings = Settings.from_run_config(config)
    return FlexMoE(settings, model_spec(settings, dataset_of(settings)))


def run(
    tmp_path: Path,
    config: dict[str, Any],
    app: ClientApp = client_app,
    grid: type[InlineGrid] = InlineGrid,
) -> tuple[Path, list[dict[str, Any]]]:
    tmp_path.mkdir(exist_ok=True)
    config = {**config, "output-dir": str(tmp_path)}
    context = Context(
        run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config
    )
    before = set(tmp_path.iterdir())
    server_app(grid=grid(app, CLIENTS, config), context=context)
    [folder] = set(tmp_path.iterdir()) - before
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return folder, [json.loads(line) for line in lines]


def mangled(client: str, change: Any) -> ClientApp:
    """Return the real ClientApp with one client's train replies changed."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return client_app(message, context)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        if f"client-{context.node_config['partition-id']}" == client:
            change(reply.content)
        return reply

    return app


def test_a_run_leaves_everything_it_promises(tmp_path: Path) -> None:
    folder, rounds = run(tmp_path, settings_of())
    facts = json.loads((folder / "run.json").read_text())
    assert facts["settings"]["num-experts"] == 4
    assert len(facts["partition_hash"]) == 1
    assert len(facts["clients"]) == CLIENTS
    assert [r["round"] for r in rounds] == [1, 2, 3]
    for key in (
        "client_global",
        "server_global",
        "client_local",
        "cv_round",
        "cv_cumulative",
        "load",
        "bytes_down",
        "bytes_up",
        "seconds",
        "solver",
    ):
        assert rounds[0][key] is not None
    with np.load(folder / "assignments.npz") as file:
        held = file["assignments"]
    assert held.shape == (3, CLIENTS, 4)
    assert held.sum(2).tolist() == [[2] * CLIENTS] * 3
    assert held.sum(1).tolist() == [r["load"] for r in rounds]
    with np.load(folder / "fitness.npz") as file:
        assert file["fitness"].shape == (3, CLIENTS, 4)
    tensors = load_file(folder / "model.safetensors")
    assert tensors["expert.3.out.weight"].shape == (10, 32)
    assert not any(name.startswith("gate") for name in tensors)


def test_cv_is_what_the_loads_say(tmp_path: Path) -> None:
    _, rounds = run(tmp_path, settings_of(strategy="random"))
    total = np.zeros(4)
    for record in rounds:
        load = np.array(record["load"])
        total += load
        assert record["cv_round"] == pytest.approx(load.std() / load.mean())
        assert record["cv_cumulative"] == pytest.approx(total.std() / total.mean())
        used = [n > 0 for client in record["clients"] for n in client["expert_samples"]]
        assert len(used) == load.sum()
        assert record["dead_share"] == pytest.approx(1 - np.mean(used))


def test_the_same_seed_gives_the_same_model_and_another_seed_another(
    tmp_path: Path,
) -> None:
    models = []
    for seed in (1, 1, 2):
        folder, _ = run(tmp_path, settings_of(seed=seed))
        models.append((folder / "model.safetensors").read_bytes())
    assert models[0] == models[1]
    assert models[0] != models[2]


def test_order_of_arrival_does_not_matter() -> None:
    config = settings_of()
    models = []
    for backwards in (False, True):
        strategy = strategy_of(config)
        grid = InlineGrid(client_app, CLIENTS, config)
        loop = RoundLoop(strategy)
        for server_round in (1, 2):
            messages = loop.open(server_round, grid)
            replies = grid.send_and_receive(messages)
            for reply in reversed(replies) if backwards else replies:
                loop.accept(reply)
            loop.close()
        models.append(strategy.model)
    for part, vector in models[0].items():
        np.testing.assert_array_equal(vector, models[1][part])


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("server-round", 99, "round 99"),
        ("expert-accuracy", [2.0, 2.0], "expert-accuracy"),
        ("client", "client-1", "calls itself"),
        ("code-hash", "0" * 16, "other code"),
        ("num-examples", 0, "at least one"),
    ],
)
def test_a_bad_reply_is_rejected_with_its_reason_and_not_merged(
    tmp_path: Path, key: str, value: Any, reason: str
) -> None:
    def change(content: RecordDict) -> None:
        content.config_records[wire.REPORT][key] = value
        # Would show in the merged model if it were used.
        for name, array in content.array_records[wire.ARRAYS].items():
            content.array_records[wire.ARRAYS][name] = Array(
                np.full(array.shape, 1e3, np.float32)
            )

    folder, rounds = run(tmp_path, settings_of(), mangled("client-0", change))
    # Asked in rounds 1 and 2; after two failures in a row it rests in round 3.
    for record in rounds[:2]:
        assert reason in record["rejected"]["client-0"]
    assert rounds[2]["rejected"] == {}
    for record in rounds:
        assert sum(record["load"]) == 2 * (CLIENTS - 1)
    for tensor in load_file(folder / "model.safetensors").values():
        assert np.abs(tensor).max() < 100


def test_a_client_that_raises_is_noted_and_the_run_goes_on(tmp_path: Path) -> None:
    def change(content: RecordDict) -> None:
        raise MemoryError("no room for two experts")

    _, rounds = run(tmp_path, settings_of(), mangled("client-3", change))
    assert "no room for two experts" in rounds[1]["rejected"]["client-3"]
    assert rounds[-1]["client_global"] is not None


def test_a_second_reply_of_the_same_client_is_not_merged() -> None:
    config = settings_of()
    strategy = strategy_of(config)
    grid = InlineGrid(client_app, CLIENTS, config)
    loop = RoundLoop(strategy)
    replies = grid.send_and_receive(loop.open(1, grid))
    for reply in [*replies, replies[0]]:
        loop.accept(reply)
    record = loop.close()
    assert sum(record.load) == 2 * CLIENTS
    assert list(record.rejected.values()) == ["was not asked"]


def test_a_late_reply_of_another_round_is_not_merged() -> None:
    config = settings_of()
    strategy = strategy_of(config)
    grid = InlineGrid(client_app, CLIENTS, config)
    loop = RoundLoop(strategy)
    late, *replies = grid.send_and_receive(loop.open(1, grid))
    for reply in replies:
        loop.accept(reply)
    assert loop.close().rejected == {"client-0": "no reply in time"}
    loop.open(2, grid)
    loop.accept(late)
    assert loop.close().load == [0, 0, 0, 0]


class ForgetfulGrid(InlineGrid):
    """Node 3, client-2, loses its order of round 2 and is back a moment later."""

    node, losses = 3, 1
    back = ""

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        pushed = list(messages)
        ids = super().push_messages(pushed)
        for message in pushed:
            about = message.metadata
            address = (about.dst_node_id, about.message_type, about.group_id)
            if self.losses and address == (self.node, "train", "2"):
                self.losses -= 1
                del self._pending[about.message_id]
                self.back = datetime.now(UTC).isoformat()
        return ids

    def get_nodes(self) -> list[NodeInfo]:
        return [
            NodeInfo(
                node_id=node,
                last_activated_at=self.back * (node == self.node),
                heartbeat_interval=30,
            )
            for node in self.get_node_ids()
        ]


def test_an_order_that_a_device_lost_is_sent_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pings, "LOOK_SECONDS", 0.0)
    # A folder each: of two runs that start within a second the second has a longer
    # name there, and the name is in every message.
    folder, rounds = run(tmp_path / "lost", settings_of(), grid=ForgetfulGrid)
    expected, undisturbed = run(tmp_path / "undisturbed", settings_of())
    [once] = [c for c in undisturbed[1]["clients"] if c["client"] == "client-2"]
    extra = [0, once["bytes_down"], 0]
    for record, other, more in zip(rounds, undisturbed, extra, strict=True):
        assert record["rejected"] == {}
        assert record["bytes_down"] == other["bytes_down"] + more
    assert rounds[1]["notes"] == ["client-2: lost on the way, asked again"]
    model = (folder / "model.safetensors").read_bytes()
    assert model == (expected / "model.safetensors").read_bytes()


def test_a_device_that_loses_every_order_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hopeless(ForgetfulGrid):
        losses = 100

    monkeypatch.setattr(pings, "LOOK_SECONDS", 0.0)
    _, rounds = run(tmp_path, settings_of(), grid=Hopeless)
    assert rounds[1]["rejected"] == {"client-2": "error 3: lost on the way"}
    assert rounds[1]["notes"] == ["client-2: lost on the way, asked again"] * LOSSES
    assert rounds[1]["merged"] and rounds[2]["rejected"] == {}


def test_bytes_are_those_of_the_messages(tmp_path: Path) -> None:
    _, rounds = run(tmp_path, settings_of())
    spec = strategy_of(settings_of()).spec
    # psi and two experts each way, 128 bytes of header an array, some scalars.
    floor = CLIENTS * (spec.nbytes("extractor") + 2 * spec.nbytes("expert.0") + 3 * 128)
    for record in rounds:
        for key in ("bytes_down", "bytes_up"):
            assert floor < record[key] < floor + CLIENTS * 1500


def test_works_under_flowers_own_loop() -> None:
    """A true Flower strategy: configure and aggregate without our start."""
    from flwr.serverapp.strategy import Strategy

    config = settings_of()
    strategy = strategy_of(config)
    grid = InlineGrid(client_app, CLIENTS, config)
    result = Strategy.start(strategy, grid, strategy.arrays(), num_rounds=2)
    assert set(result.train_metrics_clientapp) == {1, 2}
    ours = strategy_of(config)
    ours.start(InlineGrid(client_app, CLIENTS, config), num_rounds=2)
    for part, vector in ours.model.items():
        np.testing.assert_array_equal(result.arrays[part].numpy(), vector)


def test_no_client_is_a_clear_error() -> None:
    config = settings_of(**{"round-deadline": 0.1})
    with pytest.raises(RuntimeError, match="no client can take part"):
        RoundLoop(strategy_of(config)).open(1, InlineGrid(client_app, 0, config))


@pytest.mark.parametrize(
    ("plan", "shape"),
    [
        (None, "()"),
        (Plan(assignment=np.ones((1, 4), dtype=bool)), "(1, 4)"),
        (Plan(assignment=np.ones((CLIENTS, 3), dtype=bool)), f"({CLIENTS}, 3)"),
        (Plan(assignment=[[True] * 4] * CLIENTS), f"({CLIENTS}, 4)"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_plan_is_refused_with_its_shape(
    plan: Any, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings_of()
    strategy = strategy_of(config)
    monkeypatch.setattr(strategy, "plan", lambda _: plan)
    said = (
        f"'flex-moe': it plans an assignment of shape {shape}: expected an array of sha"
    )
    with pytest.raises(RunError, match=re.escape(said)):
        RoundLoop(strategy).open(1, InlineGrid(client_app, CLIENTS, config))


def test_a_server_whose_own_training_diverges_stops_and_says_of_what(
    tmp_path: Path,
) -> None:
    config = settings_of(
        **{"strategy": "cent-moe", "reserved-samples": 100, "lr": 1e20}
    )
    with pytest.raises(RuntimeError, match=r"strategy 'cent-moe' made NaN of .*may di"):
        run(tmp_path, config)
    [folder] = tmp_path.iterdir()
    assert not (folder / "metrics.jsonl").exists()  # no such round is on record
    assert not (folder / "model.safetensors").exists()


def test_sampling_takes_the_same_clients_every_time(tmp_path: Path) -> None:
    config = settings_of(**{"clients-per-round": 3})
    chosen = []
    for _ in range(2):
        _, rounds = run(tmp_path, config)
        chosen.append([[c["client"] for c in r["clients"]] for r in rounds])
    assert chosen[0] == chosen[1]
    assert all(len(names) == 3 for names in chosen[0])
    assert len({tuple(names) for names in chosen[0]}) > 1


def test_mixed_capacities_are_respected(tmp_path: Path) -> None:
    _, rounds = run(tmp_path, settings_of(**{"expert-capacity": "1:0.5,3:0.5"}))
    for record in rounds:
        assert sorted(len(c["experts"]) for c in record["clients"]) == [1] * 3 + [3] * 3
