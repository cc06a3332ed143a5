"""A fleet's status as a table, as JSON and as Prometheus text.

What the keys of the JSON and the names of the metrics mean is told in
``docs/watch-a-fleet.md``; neither is renamed without a new ``version``.
"""

import calendar
import json
import time
from collections.abc import Callable
from typing import Any

from common.exposition import Metric, exposition
from common.text import table
from server_app.provisioning.run_status import DeviceRecord
from server_app.provisioning.status import DeviceStatus, FleetStatus
from server_app.run_folder.run_state import RUN_STATES

_Value = Callable[[DeviceStatus], float | None]

VERSION = 1
"""Of the JSON's shape."""

HEADER = (
    *("device", "state", "heard of", "round", "can hold", "holds"),
    *("MB down", "MB up", "s/round", "peak MiB", "in the run"),
)


def as_table(status: FleetStatus) -> str:
    """Return what people read."""
    lines = [_headline(status)]
    if status.devices:
        rows = [HEADER, *(_row(device) for device in status.devices)]
        lines.append(table(rows))
    if missing := status.missing:
        lines.append(f"missing: {', '.join(missing)}")
    if (nodes := status.nodes) is not None:
        if nodes.problem:
            lines.append(f"({nodes.problem}: who is there is not known)")
        lines += nodes.stranger_lines()
    return "\n".join(lines)


def _headline(status: FleetStatus) -> str:
    run = status.run
    if run is None:
        return status.no_run
    parts = [f"{run.name}: {run.state}, round {run.round} of {run.rounds}"]
    if run.ended:
        parts.append(f"the last one ended {_ago(_since(run.ended, status.time))} ago")
    if run.flower_run:
        word = f" ({status.flower_state})" if status.flower_state else ""
        parts.append(f"Flower's run {run.flower_run}{word}")
    if run.why:
        parts.append(run.why)
    return ", ".join(parts)


def _row(device: DeviceStatus) -> tuple[str, ...]:
    record, age, mean = device.record, device.age, device.record.mean_seconds
    said = record.said
    if record.resting_until is not None:
        said += f"; rests until round {record.resting_until}"
    return (
        device.name,
        device.state.upper() if device.missing else device.state,
        "-" if age is None else f"{_ago(age)} ago",
        "-" if record.last_round is None else str(record.last_round),
        "-" if record.budget is None else str(record.budget),
        ",".join(map(str, record.experts)) or "-",
        f"{record.bytes_down / 1e6:.2f}",
        f"{record.bytes_up / 1e6:.2f}",
        "-" if mean is None else f"{mean:.1f}",
        "-" if record.memory_peak is None else f"{record.memory_peak / 2**20:.0f}",
        said,
    )


def as_json(status: FleetStatus) -> str:
    """Return one object on one line."""
    run, nodes = status.run, status.nodes
    return json.dumps(
        {
            "version": VERSION,
            "time": _iso(status.time),
            "missing": status.missing,
            "run": None
            if run is None
            else {
                "name": run.name,
                "path": str(run.path.absolute()),
                "state": run.state,
                "why": run.why,
                "round": run.round,
                "rounds": run.rounds,
                "round_ended": run.ended or None,
                "refused_replies": run.refused,
                "accepted_replies": run.accepted,
                "flower_run": run.flower_run or None,
                "flower_state": status.flower_state or None,
            },
            "superlink": None
            if nodes is None
            else {
                "address": nodes.address,
                "answers": nodes.answered,
                "problem": nodes.problem,
                "strangers": [
                    {"node": str(n.node_id), "name": n.name, "state": n.status}
                    for n in nodes.strangers
                ],
            },
            "certificates": [
                {"of": each.what, "device": each.device or None, "days": each.days}
                for each in status.certificates
            ],
            "devices": [_device(device) for device in status.devices],
        }
    )


def _device(device: DeviceStatus) -> dict[str, Any]:
    record = device.record
    return {
        "name": device.name,
        "state": device.state,
        "expected": device.expected,
        "missing": device.missing,
        "age_seconds": None if device.age is None else round(device.age, 1),
        "refused": record.refused or None,
        "in_the_run": record.said,
        "resting_until": record.resting_until,
        "last_round": record.last_round,
        "last_reply": record.last_reply or None,
        "budget": record.budget,
        "experts": record.experts,
        "bytes_down": record.bytes_down,
        "bytes_up": record.bytes_up,
        "seconds_per_round": record.mean_seconds,
        "memory_peak": record.memory_peak,
    }


def as_prometheus(status: FleetStatus) -> str:
    """Return Prometheus' text format.

    Raises
    ------
    MetricsError
        If ``prometheus_client`` is not installed.
    """
    return exposition(metrics(status))


def metrics(status: FleetStatus) -> list[Metric]:
    """Return every metric of a fleet, those without a sample as well."""
    run, nodes, devices = status.run, status.nodes, status.devices

    def each(
        name: str,
        text: str,
        value: _Value,
        *,
        counter: bool = False,
    ) -> Metric:
        samples = [
            ({"device": d.name}, n) for d in devices if (n := value(d)) is not None
        ]
        return Metric(f"expertfleet_device_{name}", text, samples, counter=counter)

    def known(value: Callable[[DeviceStatus], float]) -> _Value:
        # Without the SuperLink's word there is no sample, and no alarm for each device.
        return lambda d: value(d) if nodes and nodes.answered else None

    def of_run(value: Callable[[DeviceRecord], float | None]) -> _Value:
        return lambda d: value(d.record)

    def one(name: str, text: str, value: float | None) -> Metric:
        samples: list[tuple[dict[str, str], float]] = []
        samples += [] if value is None else [({}, value)]
        return Metric(f"expertfleet_fleet_{name}", text, samples)

    ended = _since(run.ended, status.time) if run and run.ended else None
    named = {"run": run.name, "flower_run": run.flower_run} if run else {}
    return [
        one(
            "superlink_up",
            "Whether the SuperLink answers.",
            None if nodes is None else int(nodes.answered),
        ),
        one(
            "strangers",
            "Nodes whose key is none of the fleet's.",
            None if nodes is None else len(nodes.strangers),
        ),
        one(
            "devices_expected",
            "Devices that should be there.",
            None if nodes is None else sum(d.expected for d in devices),
        ),
        one(
            "devices_missing",
            "Devices that should be there and are not.",
            None if nodes is None or not nodes.answered else len(status.missing),
        ),
        one("round", "Rounds done.", run.round if run else None),
        one("rounds", "Rounds the run is to have.", run.rounds if run else None),
        one("round_age_seconds", "Since the newest round ended.", ended),
        one("replies_refused", "Of the newest round.", run.refused if run else None),
        one("replies_accepted", "Of the newest round.", run.accepted if run else None),
        Metric(
            "expertfleet_fleet_run_state",
            "1 for the state the run is in.",
            [(named | {"state": s}, s == run.state) for s in RUN_STATES] if run else (),
        ),
        Metric(
            "expertfleet_fleet_certificate_seconds",
            "Until a certificate ends, in whole days.",
            [
                ({"of": each.what, "device": each.device}, 86_400 * each.days)
                for each in status.certificates
            ],
        ),
        each("up", "Whether it is connected.", known(lambda d: d.state == "online")),
        each(
            "missing",
            "Whether it should be there and is not.",
            known(lambda d: d.missing),
        ),
        each("age_seconds", "Since its last sign of life.", lambda d: d.age),
        each(
            "refused", "Whether the run refuses it.", of_run(lambda r: bool(r.refused))
        ),
        each(
            "resting",
            "Whether the run leaves it alone for some rounds.",
            of_run(lambda r: r.resting_until is not None),
        ),
        each(
            "last_round", "Round of its newest reply.", of_run(lambda r: r.last_round)
        ),
        each("budget", "Experts it can hold.", of_run(lambda r: r.budget)),
        each("experts", "Experts it holds.", of_run(lambda r: len(r.experts))),
        each(
            "reply_seconds",
            "Mean from order to reply.",
            of_run(lambda r: r.mean_seconds),
        ),
        each(
            "memory_peak_bytes",
            "Most memory in its newest round.",
            of_run(lambda r: r.memory_peak),
        ),
        each(
            "received_bytes",
            "Sent to it in the run.",
            of_run(lambda r: r.bytes_down),
            counter=True,
        ),
        each(
            "sent_bytes",
            "Of its accepted replies in the run.",
            of_run(lambda r: r.bytes_up),
            counter=True,
        ),
    ]


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _since(when: str, now: float) -> float:
    # As ``_iso`` writes it, so in UTC.
    then = calendar.timegm(time.strptime(when, "%Y-%m-%dT%H:%M:%SZ"))
    return max(0.0, now - then)


def _ago(seconds: float) -> str:
    for name, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"
