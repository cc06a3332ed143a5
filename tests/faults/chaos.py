"""A seeded client that misbehaves: what real fleets do, on purpose."""

from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client_app.app import app as real_app
from common import wire
from common.seeding import stream
from common.wire.payloads import PROTOCOL
from tests.whole_runs import app_with

Fault = Callable[[RecordDict], None]


def _arrays(change: Callable[[Any], Any]) -> Fault:
    def fault(content: RecordDict) -> None:
        record = content.array_records[wire.ARRAYS]
        for name in list(record):
            record[name] = Array(change(record[name].numpy()))

    return fault


def _report(key: str, value: Any) -> Fault:
    def fault(content: RecordDict) -> None:
        content.config_records[wire.REPORT][key] = value

    return fault


def _rename(content: RecordDict) -> None:
    record = content.array_records[wire.ARRAYS]
    record["expert.77"] = record.pop("extractor")


def _crash(content: RecordDict) -> None:
    raise MemoryError("the kernel took it all")


# Every one of these must be noticed; the text is part of the reason that is logged.
FAULTS: dict[str, tuple[str, Fault]] = {
    "drop": ("error 2", _crash),
    "nan": ("NaN", _arrays(lambda v: np.full_like(v, np.nan))),
    "infinity": ("NaN or infinity", _arrays(lambda v: np.full_like(v, np.inf))),
    "explosion": ("max-update", _arrays(lambda v: np.full_like(v, 1e6))),
    "wrong shape": ("values, expected", _arrays(lambda v: v[:-1])),
    "wrong rank": ("flat float32", _arrays(lambda v: v.reshape(1, -1))),
    "wrong dtype": ("bytes, at most", _arrays(lambda v: v.astype(np.float64))),
    "oversized": ("bytes, at most", _arrays(lambda v: np.tile(v, 50))),
    "strange expert": ("never assigned", _rename),
    "impossible accuracy": ("expert-accuracy", _report("expert-accuracy", [1.5, 0.0])),
    "negative count": ("expert-samples", _report("expert-samples", [-1, 1])),
    "impossible count": ("are possible", _report("expert-samples", [10**9, 0])),
    "wrong version": ("protocol", _report("protocol", PROTOCOL + 1)),
    "stale round": ("is for round", _report("server-round", 0)),
    "other code": ("other code", _report("code-hash", "f" * 16)),
}


def chaos_app(
    chance: float, seed: int, seen: dict[str, list[tuple[int, str]]]
) -> ClientApp:
    """Return the real ClientApp with faults in a share of its train replies.

    Parameters
    ----------
    chance : float
        Of a fault, per reply.
    seen : dict
        Filled with (round, expected reason) of every fault, by client.
    """

    def train(message: Message, context: Context) -> Message:
        order = wire.decode_order(message.content)
        client = f"client-{context.node_config['partition-id']}"
        rng = stream(seed, "chaos", order.server_round, order.attempt, client)
        if rng.random() >= chance:
            return real_app(message, context)
        reason, fault = FAULTS[rng.choice(list(FAULTS))]
        seen.setdefault(client, []).append((order.server_round, reason))
        reply = real_app(message, context)
        fault(reply.content)
        return reply

    return app_with(train=train)
