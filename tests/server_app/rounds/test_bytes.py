"""Encodings and the expert cache over the real apps: fewer bytes, the right weights."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client_app.app import app as client_app
from common.inline_grid import InlineGrid
from tests.whole_runs import app_with, rounds_of, serve

CLIENTS = 4
INT8: dict[str, Any] = {"upload-dtype": "int8", "download-dtype": "int8"}


def run(
    folder: Path,
    *,
    app: ClientApp = client_app,
    serialise: bool = False,
    **changes: Any,
) -> tuple[bytes, list[dict[str, Any]]]:
    """Return the model and the records of a small run."""
    config = {
        "num-rounds": 3,
        "num-experts": 4,
        "local-epochs": 1,
        "output-dir": str(folder),
        **{key.replace("_", "-"): value for key, value in changes.items()},
    }
    before = set(folder.glob("*/"))
    grid = InlineGrid(app, CLIENTS, config, serialise=serialise)
    serve(config, grid)
    [place] = set(folder.glob("*/")) - before or before
    return (place / "model.safetensors").read_bytes(), rounds_of(place)


def forgetful(rounds: set[str]) -> ClientApp:
    """Return the ClientApp of devices that lose what they hold before some rounds."""
    lost = set()

    def train(message: Message, context: Context) -> Message:
        moment = (message.metadata.group_id, context.node_id)
        if moment[0] in rounds and moment not in lost:
            lost.add(moment)
            for record in context.state.config_records.values():
                for name in [name for name in record if name.startswith("parts/")]:
                    del record[name]
        return client_app(message, context)

    return app_with(train=train)


def test_fewer_bytes_in_the_order_of_the_encodings(tmp_path: Path) -> None:
    wide: dict[str, Any] = {"expert_hidden": 256, "num_rounds": 1}
    _, [full] = run(tmp_path, **wide)
    _, [half] = run(tmp_path, upload_dtype="float16", download_dtype="float16", **wide)
    _, [small] = run(tmp_path, **INT8, **wide)
    for way in ("bytes_down", "bytes_up"):
        assert 0.49 < half[way] / full[way] < 0.53
        assert 0.25 < small[way] / full[way] < 0.30
        assert full[way] == sum(client[way] for client in full["clients"])


# Strategies that ship different things: experts, a shared gate, own mixtures, windows.
@pytest.mark.parametrize(
    "strategy", ["flex-moe", "fed-moe", "fedjets", "fedrolex", "flwr:FedAvg"]
)
def test_int8_gives_the_same_bits_with_and_without_a_wire(
    tmp_path: Path, strategy: str
) -> None:
    own: dict[str, Any] = {"reserved_samples": 100} if strategy == "fed-moe" else {}
    model, records = run(tmp_path, strategy=strategy, **INT8, **own)
    wired, _ = run(tmp_path, strategy=strategy, serialise=True, **INT8, **own)
    assert model == wired
    assert all(record["rejected"] == {} for record in records)


def test_int8_resumes_bit_by_bit_error_feedback_and_cache_included(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {**INT8, "expert-cache": True}
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, _ = run(
        tmp_path / "whole", state_dir=str(tmp_path / "a"), num_rounds=4, **settings
    )
    state: dict[str, Any] = {"state_dir": str(tmp_path / "b"), **settings}
    run(tmp_path / "parts", num_rounds=3, **state)
    [place] = (tmp_path / "parts").iterdir()
    # As if the server had died before it wrote the checkpoint of round 3: the devices
    # have gone through that round already.
    (place / "checkpoints" / "round-000003.ckpt").unlink()
    resumed, records = run(
        tmp_path / "parts", num_rounds=4, resume_from=str(place), **state
    )
    assert [record["round"] for record in records] == [1, 2, 3, 4]
    assert resumed == whole


def test_what_never_changes_is_sent_once(tmp_path: Path) -> None:
    # FedJETs' common expert is frozen after the warm-up of one round.
    off, plain = run(tmp_path, strategy="fedjets", num_rounds=4)
    on, cached = run(tmp_path, strategy="fedjets", num_rounds=4, expert_cache=True)
    assert on == off
    common = 4 * (64 * 64 + 64)
    for server_round in (2, 3):
        saved = plain[server_round]["bytes_down"] - cached[server_round]["bytes_down"]
        assert saved == pytest.approx(CLIENTS * common, rel=0.05)


def test_a_lost_cache_is_told_and_filled_again_in_the_same_round(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {
        "strategy": "fedjets",
        "num_rounds": 4,
        "expert_cache": True,
    }
    kept, _ = run(tmp_path, **settings)
    lost, records = run(tmp_path, app=forgetful({"4"}), **settings)
    assert lost == kept
    assert len(records[3]["clients"]) == sum(
        c["replied"] for c in records[3]["clients"]
    )
    notes = " ".join(records[3]["notes"])
    for client in range(CLIENTS):
        assert f"client-{client} lacked common" in notes
    # Both messages count.
    assert records[3]["bytes_down"] > 1.5 * records[2]["bytes_down"]
    assert records[3]["bytes_up"] > records[2]["bytes_up"]


def test_a_short_round_is_repeated_from_the_cache(tmp_path: Path) -> None:
    # Nobody answers before the second attempt of round 2.
    asked: dict[tuple[str, int], int] = {}

    def train(message: Message, context: Context) -> Message:
        moment = (message.metadata.group_id, context.node_id)
        asked[moment] = asked.get(moment, 0) + 1
        reply = client_app(message, context)
        if moment[0] == "2" and asked[moment] == 1 and context.node_id > 1:
            raise ConnectionError("lost on the way back")
        return reply

    settings: dict[str, Any] = {
        "min_replies": CLIENTS,
        "expert_cache": True,
        "num_rounds": 3,
    }
    _, records = run(tmp_path, app=app_with(train=train), **settings)
    assert records[1]["merged"]
    assert any("attempt 1 dropped" in note for note in records[1]["notes"])
    # Only the one client whose reply arrived said what it holds.
    down = {client["client"]: client["bytes_down"] for client in records[1]["clients"]}
    assert down["client-0"] < 0.5 * down["client-1"]


def test_a_switching_cost_keeps_experts_where_they_are(tmp_path: Path) -> None:
    def moves(cost: float) -> int:
        _, records = run(tmp_path, num_rounds=6, num_experts=8, switching_cost=cost)
        # A client that every new expert would cost more than it brings may rest.
        held = [
            {c["client"]: set(c["experts"]) for c in record["clients"]}
            for record in records
        ]
        return sum(
            len(now - earlier.get(client, set()))
            for earlier, later in pairwise(held)
            for client, now in later.items()
        )

    assert moves(0.5) < moves(0.0)
