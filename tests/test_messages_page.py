"""``docs/messages.md`` names every field that is sent: no more, no fewer.

Once against the types of the wire, and once against what real runs really send, for a
message could be put together past the types.
"""

import json
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from client_app.app import app as real_app
from common import wire
from common.inline_grid import InlineGrid
from common.wire.base_pieces import BaseKept, BasePiece
from common.wire.measurement import MeasureOrder, MeasureReport
from common.wire.payloads import Payload
from server_app.launcher.config import THIS_APP, app_defaults
from server_app.rounds.client_round import ClientRound
from server_app.strategies import find_strategy
from tests.whole_runs import serve

PAGE = (Path(__file__).resolve().parents[1] / "docs/messages.md").read_text()
UP = "From the device"
DOWN = "To the device"
FLOWERS = "answer to Flower's own strategies"


def sections() -> dict[tuple[str, str], set[str]]:
    """Return the fields of each message, by direction and heading."""
    found: dict[tuple[str, str], set[str]] = {}
    for chapter in PAGE.split("\n## ")[1:]:
        direction = chapter.splitlines()[0]
        for section in chapter.split("\n### ")[1:]:
            rows = re.findall(r"^\| (`.*?) \|", section, re.M)
            fields = [field for row in rows for field in re.findall(r"`(.+?)`", row)]
            assert len(fields) == len(set(fields)), section
            found[direction, section.splitlines()[0]] = set(fields)
    return found


PAYLOADS: dict[tuple[str, str], type[Payload]] = {
    (UP, "`query` answer"): wire.QueryReply,
    (UP, "`query` refusal"): wire.Refusal,
    (UP, "`query.base` answer"): BaseKept,
    (UP, "`train` and `evaluate` answer"): wire.TrainReport,
    (UP, "answer about lost parts"): wire.MissingParts,
    (UP, "`evaluate` answer to the server's model"): MeasureReport,
    (DOWN, "`query`"): wire.Query,
    (DOWN, "`query.base`"): BasePiece,
    (DOWN, "`train`"): wire.TrainOrder,
    (DOWN, "`evaluate` of the server's model"): MeasureOrder,
}


@pytest.mark.parametrize("place", PAYLOADS)
def test_every_field_of_the_types_is_on_the_page(place: tuple[str, str]) -> None:
    kind = PAYLOADS[place]
    expected = {field.alias or name for name, field in kind.model_fields.items()}
    if kind is MeasureOrder:
        expected -= {f.alias for f in wire.TrainOrder.model_fields.values()}
    assert sections()[place] == expected


def test_every_message_has_a_section_and_every_section_a_message() -> None:
    concrete = {kind for kind in _descendants(Payload) if not kind.__subclasses__()}
    described = {*PAYLOADS.values()}
    # An order to measure is an order to train and three fields more.
    assert concrete | {wire.TrainOrder} == described
    silent = {(UP, "`query.ping` answer"), (UP, "error"), (UP, FLOWERS)}
    assert {*sections()} == {*PAYLOADS, *silent}


def _descendants(kind: type[Payload]) -> set[type[Payload]]:
    below = {*kind.__subclasses__()}
    return below.union(*map(_descendants, below))


PART = re.compile(r"(model\d+\.)?(extractor|gate|common|expert\.\d+)")

# --- what real runs send --------------------------------------------------------------

SMALL = {
    "num-experts": 4,
    "local-epochs": 1,
    "num-rounds": 2,
    "train-samples": 200,
    "test-samples": 50,
}
RUNS: dict[str, dict[str, Any]] = {
    "flex-moe": {
        "expert-cache": True,
        "upload-dtype": "int8",
        "client-metrics": f"{__name__}:largest",
    },
    "kin": {"private-counts": True},
    "fedmix": {},
    "fedjets": {},
    "hfedmoe": {},
    "ifca": {},
    "ditto": {},
    "fedrolex": {},
    "flwr:FedProx": {"strategy-options": "proximal-mu=0.1"},
    "fed-moe": {"reserved-samples": 50},
}


def largest(model: Any, x: Any, y: Any) -> dict[str, float]:
    return {"largest": float(x.max())}


def _run(folder: Path, config: dict[str, Any], clients: int) -> list[tuple[str, Any]]:
    """Train; return the kind of each message with its content, both ways."""
    sent: list[tuple[str, RecordDict]] = []
    app = ClientApp()

    def noted(message: Message, context: Context) -> Message:
        reply = real_app(message, context)
        sent.extend(((DOWN, message.content), (UP, reply.content)))
        return reply

    app.query()(noted)
    app.query("ping")(noted)
    app.query("base")(noted)
    app.train()(noted)
    app.evaluate()(noted)
    config = {**app_defaults(THIS_APP), **SMALL, **config, "output-dir": str(folder)}
    serve(config, InlineGrid(app, clients, config, serialise=True))
    return sent


def _scalars(content: RecordDict) -> dict[str, set[str]]:
    """Return the keys of every record that is no array's, by the record's name."""
    return {
        name: {re.sub(r"^metrics\..*", "metrics", key) for key in record}
        for name, record in content.items()
        if isinstance(record, ConfigRecord | MetricRecord)
    }


def _unknown(sent: list[tuple[str, Any]], private: set[str]) -> list[str]:
    page, found = sections(), []
    for direction, content in sent:
        for record, keys in _scalars(content).items():
            fitting = [
                fields
                for (where, name), fields in page.items()
                if where == direction and keys <= fields
            ]
            measured = (
                page[DOWN, "`train`"] | page[DOWN, "`evaluate` of the server's model"]
            )
            flower = direction == DOWN and keys <= {"server-round", "proximal-mu"}
            if not (fitting or keys <= measured or flower):
                found.append(f"{direction}, record {record}: {sorted(keys)}")
        parts = [part for r in content.array_records.values() for part in r]
        found += [
            f"{direction}, part {part}"
            for part in parts
            if part in private or not PART.fullmatch(part)
        ]
    return found


@pytest.mark.parametrize("strategy", RUNS)
def test_nothing_else_is_sent(strategy: str, tmp_path: Path) -> None:
    sent = _run(tmp_path, {"strategy": strategy, **RUNS[strategy]}, 4)
    assert {direction for direction, _ in sent} == {UP, DOWN}
    shared = getattr(find_strategy(strategy), "gate", "none") == "shared"
    assert _unknown(sent, set() if shared else {"gate"}) == []


def test_nothing_else_is_sent_of_data_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "task.toml").write_text(
        'kind = "table"\nclasses = ["a", "b"]\ncolumns = ["p", "q"]\nscale = "fleet"\n'
    )
    rng = np.random.default_rng(0)
    for name in ("north", "south"):
        rows = [
            f"{p:.3f},{q:.3f},{'ab'[int(p > q)]}" for p, q in rng.normal(size=(40, 2))
        ]
        (tmp_path / "sites" / name).mkdir(parents=True)
        text = "\n".join(["p,q,label", *rows])
        (tmp_path / "sites" / name / "rows.csv").write_text(text)
    (tmp_path / "sites" / "empty").mkdir()  # it is refused, and says why
    config = {
        "train-samples": 0,
        "test-samples": 0,
        "partition": "folders",
        "backbone": "mlp",
        "data-dir": str(tmp_path / "sites"),
        "task": str(tmp_path / "task.toml"),
    }
    sent = _run(tmp_path, config, 3)
    assert _unknown(sent, {"gate"}) == []
    keys = set[str]().union(
        *(k for _, content in sent for k in _scalars(content).values())
    )
    # The rarer ones were among them: moments, refusals, counts of the server's model.
    assert {"moments-least", "reason", "counts", "predictor"} <= keys


def test_every_file_of_a_run_is_on_the_page(tmp_path: Path) -> None:
    _run(tmp_path, {}, 4)
    [folder] = tmp_path.iterdir()
    table = PAGE.split("| file |")[1].split("\n\n")[0]
    named = {name.split(".")[0] for name in re.findall(r"`([\w.]+)`", table)}
    assert {path.name.split(".")[0] for path in folder.iterdir()} <= named
    facts = json.loads((folder / "run.json").read_text())
    assert facts.keys() <= named
    asked = {*wire.QueryReply.model_fields} | {"budget"}
    assert all(client.keys() <= asked for client in facts["clients"].values())
    [line, _] = (folder / "metrics.jsonl").read_text().splitlines()
    said = {*ClientRound.__dataclass_fields__}
    assert all(client.keys() <= said for client in json.loads(line)["clients"])
    # Of the server's machine: its name in the lock, its paths in the settings alone.
    texts = [
        path for path in folder.iterdir() if path.is_file() and path.name != "lock"
    ]
    del facts["settings"]
    host = socket.gethostname().encode()
    assert len(host) < 4 or not [p for p in texts if host in p.read_bytes()]
    assert str(tmp_path) not in json.dumps(facts)
