"""A pretrained run over the real apps: the base travels once at most, and adapters."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client_app.app import app as client_app
from client_app.kept import base_weights
from client_app.kept.snapshot import DeviceSource
from common import wire
from common.errors import SettingsError, SourceError
from common.hub import load_weights
from common.inline_grid import InlineGrid
from common.moe.bases import freeze
from common.wire import base_pieces
from server_app.rounds import asking_again
from server_app.run_folder import base_file
from server_app.run_source import RunSource
from tests.checkpoints import BLOCKS, Devices, own_process, save, without_weights
from tests.whole_runs import app_with, rounds_of, serve

CLIENTS = 3


@pytest.fixture(autouse=True)
def packed_anew() -> None:
    base_file._packed.cache_clear()  # in pieces of the size of another test


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


def run(config: dict[str, Any], app: ClientApp = client_app) -> Path:
    folder = Path(config["output-dir"])
    before = set(folder.glob("*/"))
    serve(config, InlineGrid(app, CLIENTS, config))
    places = set(folder.glob("*/"))
    [place] = places - before or places
    return place


def lacking(tmp_path: Path, config: dict[str, Any], **said: Any) -> Devices:
    """Return devices that have configuration and tokeniser, and no weights."""
    place = without_weights(config["pretrained"], tmp_path / "lacking")
    node = {"pretrained": place, **{k.replace("_", "-"): v for k, v in said.items()}}
    return Devices({number: node for number in range(1, CLIENTS + 1)})


def in_pieces(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    for module in (base_pieces, base_weights, asking_again, base_file):
        monkeypatch.setattr(module, "PIECE", size)


def pieces_of(devices: Devices) -> list[tuple[str, int, int]]:
    """Return round, node and start of every piece that was sent."""
    return [
        (number, node, wire.decode_piece(message.content)[0].start)
        for number, node, message in devices.down
        if message.metadata.message_type == wire.PIECE_MESSAGE
    ]


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_the_base_is_sent_once_to_each_device(kind: str, tmp_path: Path) -> None:
    config = config_of(tmp_path, kind)
    devices = lacking(tmp_path, config)
    place = run(config, devices.app)
    assert sorted(pieces_of(devices)) == [("1", node, 0) for node in (1, 2, 3)]
    held = {"extractor", *(f"expert.{e}" for e in range(8))}
    for _, _, message in devices.down:
        if message.metadata.message_type == "train":
            parts = set(wire.arrays_of(message.content))
            assert parts <= held and len(parts) == 1 + 2 * 2
    # Counted from the messages: afterwards a round weighs what adapters and head do.
    base = len(freeze(load_weights(config["pretrained"])).to_bytes())
    first, second, third = rounds_of(place)
    more = (first["bytes_down"] - second["bytes_down"]) / CLIENTS
    assert base < more < base + 500
    assert abs(second["bytes_down"] - third["bytes_down"]) < 200 * CLIENTS
    for record in (first, second, third):
        sent = [m for number, _, m in devices.down if number == str(record["round"])]
        assert record["bytes_down"] == sum(map(wire.message_bytes, sent))
    assert "client-1 was sent the frozen base" in first["notes"]


def test_who_has_it_is_sent_nothing(tmp_path: Path) -> None:
    config = config_of(tmp_path, "bert", state_dir=str(tmp_path / "state"))
    # A copy in a wider type, in another file, is the same base.
    copy, weights = tmp_path / "copy", load_weights(config["pretrained"])
    without_weights(config["pretrained"], copy)
    weights.double().save_pretrained(copy, max_shard_size="20KB")  # type: ignore[operator]
    others = save("bert", tmp_path / "others", seed=1)
    devices = Devices({1: {"pretrained": str(copy)}, 2: {"pretrained": others}})
    place = run(config, devices.app)
    # The third is a virtual client: the server's own copy is there for it.
    assert pieces_of(devices) == [("1", 2, 0)]
    first, *_ = rounds_of(place)
    assert [note for note in first["notes"] if "checkpoint are others" in note] == [
        f"client-1: the weights in its directory of the checkpoint are others "
        f"({freeze(load_weights(others)).version}) than the run's "
        f"({freeze(weights.float()).version}), which it has to be sent"
    ]
    assert len(list((tmp_path / "state" / "bases").iterdir())) == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_small_type_is_sent_as_it_is_stored(dtype: str, tmp_path: Path) -> None:
    save("bert", tmp_path / "bert", dtype=dtype)
    config = config_of(tmp_path, "bert", num_rounds=1)
    devices = lacking(tmp_path, config)
    place = run(config, devices.app)
    weights = load_weights(config["pretrained"])
    values = sum(p.numel() for p in weights.parameters())
    total = {
        wire.decode_piece(m.content)[0].total for _, _, m in devices.down[:1]
    }.pop()
    assert 2 * values < total < 2 * values + 8000  # and the names of its tensors
    assert (place / "pretrained" / "model.safetensors").stat().st_size < total + 200
    kept = freeze(load_weights(str(place / "pretrained")))
    assert kept.version == freeze(weights).version


def test_it_goes_on_where_it_was_and_is_there_for_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, "bert", num_rounds=1)
    total = len(freeze(load_weights(config["pretrained"])).to_bytes())
    in_pieces(monkeypatch, size := (total - 1) // 4)  # and a fifth of a few bytes
    devices = lacking(tmp_path, config, state_dir=str(tmp_path / "state"))
    answer, cut = devices._answer, [2]

    def killed(message: Message, context: Context) -> Message:
        pieces = [start for _, node, start in pieces_of(devices) if node == 2]
        if context.node_id == 2 and len(pieces) in cut:
            cut.remove(len(pieces))
            raise ConnectionError("power")
        return answer(message, context)

    devices._answer = killed  # type: ignore[method-assign]
    devices.nodes[2] = {**devices.nodes[2], "state-dir": str(tmp_path / "second")}
    run(config, devices.app)
    first = pieces_of(devices)
    # The other two share a state directory: what one has, the other need not fetch.
    assert [s for _, node, s in first if node == 2] == [0, size]
    assert len({s for _, node, s in first if node != 2}) == 5
    devices.down.clear()
    run(config | {"seed": 1}, devices.app)
    assert pieces_of(devices) == [("1", 2, size * number) for number in (1, 2, 3, 4)]
    devices.down.clear()
    last = run(config | {"seed": 2}, devices.app)
    assert pieces_of(devices) == []
    assert [c["replied"] for c in rounds_of(last)[0]["clients"]] == [True] * CLIENTS


@pytest.mark.parametrize("what", ["damaged", "lost"])
def test_a_device_whose_base_is_gone_gets_it_in_the_same_round(
    what: str, tmp_path: Path
) -> None:
    config = config_of(tmp_path, "bert", num_rounds=2, state_dir=str(tmp_path / "s"))
    devices = lacking(tmp_path, config)
    for node in devices.nodes:
        devices.nodes[node] = {
            **devices.nodes[node],
            "state-dir": str(tmp_path / f"{node}"),
        }
    answer, struck = devices._answer, set()

    def striking(message: Message, context: Context) -> Message:
        if message.metadata.group_id == "2" and context.node_id not in struck:
            struck.add(context.node_id)
            [piece] = (tmp_path / f"{context.node_id}" / "bases").iterdir()
            if what == "lost":
                piece.unlink()
            else:
                data = piece.read_bytes()
                piece.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        return answer(message, context)

    devices._answer = striking  # type: ignore[method-assign]
    place = run(config, devices.app)
    assert sorted(pieces_of(devices)) == [(n, c, 0) for n in "12" for c in (1, 2, 3)]
    last = rounds_of(place)[-1]
    assert sum("lacked base" in note for note in last["notes"]) == CLIENTS
    assert [c["replied"] for c in last["clients"]] == [True] * CLIENTS
    # And the model is that of devices that had it all along.
    other = run(config_of(tmp_path, "bert", num_rounds=2))
    name = "model.safetensors"
    assert (place / name).read_bytes() == (other / name).read_bytes()


def test_who_cannot_keep_it_costs_its_own_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, "bert", num_rounds=1)
    devices = lacking(tmp_path, config)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "bases").write_text("a file where the folder should be")
    devices.nodes[2] = {**devices.nodes[2], "state-dir": str(tmp_path / "full")}
    [record] = rounds_of(run(config, devices.app))
    assert "does not keep the frozen base: " in record["rejected"]["client-1"]
    assert sum(c["replied"] for c in record["clients"]) == CLIENTS - 1


def test_predicting_needs_what_the_run_and_the_device_have(tmp_path: Path) -> None:
    state = tmp_path / "state"
    config = config_of(tmp_path, "bert", expert_cache=True, upload_dtype="int8")
    devices = lacking(tmp_path, config, state_dir=str(state))
    place = run(config, devices.app)
    # Nothing but the run's directory and the devices' own is needed afterwards.
    shutil.rmtree(tmp_path / "bert")
    x = np.array([[3, 7, 6, 4, 0, 0, 0, 0]])
    with own_process():
        served = RunSource(place).load()
        assert served.predict(x).probabilities.shape == (1, 2)
        assert served.encode(["a text"]).shape == (1, 8)
    with own_process():
        device = DeviceSource(state, client="client-0").load()
        assert device.predict(x).probabilities.shape == (1, 2)
        assert device.encode(["a text"]).shape == (1, 8)
    shutil.rmtree(state / "bases")
    with own_process(), pytest.raises(SourceError, match=r"base .* is neither in"):
        DeviceSource(state, client="client-0").load()


def test_the_base_is_in_no_checkpoint_and_a_run_goes_on(tmp_path: Path) -> None:
    config = config_of(tmp_path, "bert", num_rounds=2)
    place = run(config)
    base = (place / "pretrained" / "model.safetensors").stat().st_size
    sizes = [p.stat().st_size for p in (place / "checkpoints").iterdir()]
    assert sizes and max(sizes) < base
    resumed = config | {"num-rounds": 3, "resume-from": str(place)}
    assert run(resumed) == place
    assert [r["round"] for r in rounds_of(place)] == [1, 2, 3]
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
    changes: dict[str, Any] = {"reserved_samples": 12, "num_rounds": 2}
    place = run(config_of(tmp_path, "gpt2", strategy=strategy, **changes))
    last = rounds_of(place)[-1]
    assert last["round"] == 2 and not last["rejected"]
    assert last["server_global"] is not None


def test_what_is_wrong_is_told_before_anybody_is_asked(tmp_path: Path) -> None:
    def refused(**changes: Any) -> str:
        def never(*_: Any) -> Message:
            raise AssertionError("a device was asked")

        app = app_with(query=never, train=never)
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

    def query(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 1:
            context.node_config["pretrained"] = other
        return client_app(message, context)

    place = run(config | {"num-rounds": 1}, app_with(query=query))
    [record] = rounds_of(place)
    assert sorted(c["client"] for c in record["clients"]) == ["client-0", "client-2"]
