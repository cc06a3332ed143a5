"""A pretrained run over the real apps: the base travels once, then adapters alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client_app.app import app as client_app
from client_app.kept.snapshot import DeviceSource
from common import wire
from common.errors import SettingsError
from common.inline_grid import InlineGrid
from common.inputs import InputError
from common.moe.bases import _installed
from common.parts import BASE
from server_app.app import app as server_app
from server_app.run_source import RunSource
from tests.checkpoints import BLOCKS, save

CLIENTS = 3


def config_of(folder: Path, kind: str, **changes: Any) -> dict[str, Any]:
    data, checkpoint = folder / "data", folder / kind
    if not data.exists():
        data.mkdir()
        rng = np.random.default_rng(0)
        lines = [
            {
                "text": " ".join(rng.choice(["very", "the", "a", "plot"], 4).tolist())
                + [" bad", " good"][label],
                "label": label,
                "group": f"shop {number % CLIENTS}",
            }
            for number in range(90)
            for label in [number // CLIENTS % 2]
        ]
        text = "\n".join(map(json.dumps, lines))
        (data / "shops.jsonl").write_text(text, encoding="utf-8")
    if not checkpoint.exists():
        save(kind, checkpoint)
    return {
        "dataset": "shops",
        "data-dir": str(data),
        "partition": "natural",
        "text-length": 8,
        "backbone": "pretrained",
        "pretrained": str(checkpoint),
        "num-experts": 4,
        "expert-hidden": 4,
        "moe-layers": "1,3",
        "local-epochs": 1,
        "num-rounds": 3,
        "output-dir": str(folder / "results"),
        **{key.replace("_", "-"): value for key, value in changes.items()},
    }


class Recorder:
    """Runs an app and notes which parts went down and up, round by round."""

    def __init__(self, lose: str = "") -> None:
        self.down: list[tuple[str, int, set[str], int]] = []
        self.up: list[tuple[str, set[str], int]] = []
        self.app = ClientApp()
        lost: set[int] = set()

        @self.app.query()
        def query(message: Message, context: Context) -> Message:
            return client_app(message, context)

        @self.app.train()
        def train(message: Message, context: Context) -> Message:
            moment = message.metadata.group_id
            parts = set(wire.arrays_of(message.content))
            size = wire.message_bytes(message)
            self.down.append((moment, context.node_id, parts, size))
            if moment == lose and context.node_id not in lost:
                lost.add(context.node_id)
                for record in context.state.config_records.values():
                    for name in [n for n in record if n.startswith("base/")]:
                        del record[name]
            # What an earlier message brought to this process is not this device's.
            reply = client_app(message, context)
            sent = set(wire.arrays_of(reply.content))
            self.up.append((moment, sent, wire.message_bytes(reply)))
            return reply


def run(config: dict[str, Any], app: ClientApp = client_app) -> Path:
    folder = Path(config["output-dir"])
    before = set(folder.glob("*/"))
    context = Context(
        run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config
    )
    server_app(grid=InlineGrid(app, CLIENTS, config), context=context)
    places = set(folder.glob("*/"))
    [place] = places - before or places
    return place


def records(place: Path) -> list[dict[str, Any]]:
    return [json.loads(x) for x in (place / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_the_base_is_sent_once_to_each_device(kind: str, tmp_path: Path) -> None:
    recorder = Recorder()
    place = run(config_of(tmp_path, kind), recorder.app)
    with_base = [moment for moment, _, parts, _ in recorder.down if BASE in parts]
    assert with_base == ["1"] * CLIENTS
    assert not any(BASE in parts for _, parts, _ in recorder.up)
    held = {"extractor", *(f"expert.{e}" for e in range(8))}
    for _, _, parts, _ in recorder.down:
        assert parts - {BASE} <= held and len(parts - {BASE}) == 1 + 2 * 2
    # Counted from the messages: afterwards a round weighs what adapters and head do.
    base = (place / "pretrained" / "model.safetensors").stat().st_size
    first, second, third = records(place)
    assert first["bytes_down"] > 0.9 * CLIENTS * base
    assert second["bytes_down"] < 0.4 * CLIENTS * base
    saved = first["bytes_down"] - second["bytes_down"]
    version_bytes = 200 * CLIENTS
    assert abs(saved / CLIENTS - _base_bytes(place)) < version_bytes
    assert abs(second["bytes_down"] - third["bytes_down"]) < version_bytes
    for record in (first, second, third):
        number = str(record["round"])
        sizes = [size for moment, _, _, size in recorder.down if moment == number]
        assert record["bytes_down"] == sum(sizes)
        up = [size for moment, _, size in recorder.up if moment == number]
        assert record["bytes_up"] == sum(up)


def _base_bytes(place: Path) -> int:
    from common.hub import load_weights
    from common.moe.vectors import pack

    return 128 + pack(load_weights(str(place / "pretrained"))).nbytes


def test_a_device_that_lost_it_gets_it_in_the_same_round(tmp_path: Path) -> None:
    recorder = Recorder(lose="2")
    config = config_of(tmp_path, "bert")
    lost = run(config, recorder.app)
    with_base = [moment for moment, _, parts, _ in recorder.down if BASE in parts]
    assert with_base == ["1"] * CLIENTS + ["2"] * CLIENTS
    _, second, _ = records(lost)
    assert sum("lacked base" in note for note in second["notes"]) == CLIENTS
    assert len([c for c in second["clients"] if c["replied"]]) == CLIENTS
    kept = run(config)
    name = "model.safetensors"
    assert (lost / name).read_bytes() == (kept / name).read_bytes()


def test_devices_with_a_directory_and_a_cache(tmp_path: Path) -> None:
    recorder = Recorder()
    state = tmp_path / "state"
    config = config_of(
        tmp_path, "bert", state_dir=str(state), expert_cache=True, upload_dtype="int8"
    )
    place = run(config, recorder.app)
    assert sum(BASE in parts for _, _, parts, _ in recorder.down) == CLIENTS
    assert len(list(state.glob("*/*/base/*.npy"))) == CLIENTS
    # Nothing but the run's directory and the devices' own is needed afterwards.
    for path in (tmp_path / "bert").iterdir():
        path.unlink()
    (tmp_path / "bert").rmdir()
    _installed.clear()
    served = RunSource(place).load()
    _installed.clear()
    device = DeviceSource(state, client="client-0").load()
    x = np.array([[3, 7, 6, 4, 0, 0, 0, 0]])
    for servable in (served, device):
        assert servable.predict(x).probabilities.shape == (1, 2)
    assert served.encode(["a text"]).shape == (1, 8)
    with pytest.raises(InputError, match="texts cannot be read: pretrained = "):
        device.encode(["a text"])


def test_the_base_is_in_no_checkpoint_and_a_run_goes_on(tmp_path: Path) -> None:
    config = config_of(tmp_path, "bert", num_rounds=2)
    place = run(config)
    base = _base_bytes(place)
    sizes = [p.stat().st_size for p in (place / "checkpoints").iterdir()]
    assert sizes and max(sizes) < base
    resumed = config | {"num-rounds": 3, "resume-from": str(place)}
    assert run(resumed) == place
    assert [r["round"] for r in records(place)] == [1, 2, 3]
    other = save("bert", tmp_path / "other", seed=1)
    with pytest.raises(SettingsError, match="has changed since the run began"):
        run(resumed | {"pretrained": other, "num-rounds": 4})


@pytest.mark.parametrize(
    "strategy",
    [
        *("fed-moe", "fedmix", "fedjets", "fedavg", "fedprox", "flex-moe-plus"),
        "flwr:FedAdam",
    ],
)
def test_strategies(strategy: str, tmp_path: Path) -> None:
    recorder = Recorder()
    changes: dict[str, Any] = {"reserved_samples": 12, "num_rounds": 2}
    place = run(config_of(tmp_path, "gpt2", strategy=strategy, **changes), recorder.app)
    last = records(place)[-1]
    assert last["round"] == 2 and not last["rejected"]
    assert last["server_global"] is not None
    assert sum(BASE in parts for _, _, parts, _ in recorder.down) == CLIENTS


def test_what_is_wrong_is_told_before_anybody_is_asked(tmp_path: Path) -> None:
    def refused(**changes: Any) -> str:
        def never(*_: Any) -> Message:
            raise AssertionError("a device was asked")

        app = ClientApp()
        app.query()(never)
        app.train()(never)
        with pytest.raises(SettingsError) as error:
            run(config_of(tmp_path, "bert") | changes, app)
        return str(error.value)

    assert "does not exist" in refused(pretrained=str(tmp_path / "nowhere"))
    assert f"the blocks of the checkpoint = {BLOCKS}" in refused(**{"moe-layers": "4"})
    assert "text-length = 64" in refused(**{"text-length": 64})
    assert "backbone = 'pretrained' is not allowed" in refused(
        dataset="digits", partition="iid"
    )


def test_a_device_with_another_tokeniser_is_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path, "bert")
    other = save("bert", tmp_path / "other", tokeniser=False)
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 1:
            context.node_config["pretrained"] = other
        return client_app(message, context)

    app.train()(lambda message, context: client_app(message, context))
    [record] = records(run(config | {"num-rounds": 1}, app))
    assert sorted(c["client"] for c in record["clients"]) == ["client-0", "client-2"]
