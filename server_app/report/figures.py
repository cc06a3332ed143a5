"""The figures of one run: what each of them shows, and why it may be missing."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from common.metrics import worst_tenth
from server_app.report.by_class import confusion, recall
from server_app.report.heat import heatmap
from server_app.report.numbers import number
from server_app.report.run_data import RunData
from server_app.report.style import figure
from server_app.report.svg import Series, legend, line_chart
from server_app.run_folder.run_files import finite

ACCURACIES = (
    "server_global",
    "fleet",
    "balanced",
    "client_global",
    "worst_group",
    "served",
    "client_local",
)
MEGABYTE = 1e6


def measured(*runs: RunData) -> list[str]:
    """Return the accuracies that any of the runs has, or if none has one, will have."""
    found = [
        name
        for name in ACCURACIES
        if any(np.isfinite(run.column(name)).any() for run in runs)
    ]
    rounds = [record for run in runs for record in run.rounds]
    return found or [name for name in ACCURACIES if any(name in r for r in rounds)]


def line_figure(
    name: str,
    caption: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    top: float | None = None,
    note: str = "",
) -> str:
    """Return a captioned line chart with its legend."""
    chart = line_chart(series, x_label=x_label, y_label=y_label, top=top)
    return figure(name, caption, note, chart + legend(series))


def columns(
    run: RunData, names: Mapping[str, str], x: Sequence[float] = (), unit: float = 1
) -> list[Series]:
    """Return columns of a run, each under its text, over ``x`` or the rounds."""
    return [
        Series(name=text, x=x or run.numbers, y=[v / unit for v in run.column(key)])
        for key, text in names.items()
    ]


def megabytes(run: RunData) -> list[float]:
    """Return what was sent and received up to each round."""
    names = ("bytes_down", "bytes_up", "fleet_bytes")
    return [b / MEGABYTE for b in run.cumulated(*names)]


def accuracy_figures(run: RunData) -> str:
    """Return accuracy over rounds, over cumulated megabytes and over time."""
    names = {name: name for name in measured(run)}
    axes: list[tuple[str, str, Sequence[float], str]] = [
        ("rounds", "round", run.numbers, "round"),
        ("bytes", "traffic", megabytes(run), "MB sent and received in all"),
        ("seconds", "time", run.cumulated("seconds"), "seconds of rounds"),
    ]
    return "".join(
        line_figure(
            f"accuracy-{name}",
            f"Accuracy by {by}",
            columns(run, names, x),
            x_label,
            "accuracy",
            top=1.0,
        )
        for name, by, x, x_label in axes
    )


def load_map(run: RunData, high: float | None = None) -> str:
    """Return the heatmap of how many clients held each expert in each round."""
    return heatmap(
        run.load,
        x_label="round",
        y_label="expert",
        high=high,
        column_names=[str(number) for number in run.numbers],
        name="load",
    )


def load(run: RunData) -> str:
    """Return how many clients held each expert in each round."""
    note = "clients that held the expert and replied"
    return figure("load", "Load of the experts", note, load_map(run))


def balance(run: RunData) -> str:
    """Return the coefficients of variation of the load, and who got no sample."""
    names = {
        "cv_cumulative": "holders, summed over rounds",
        "cv_round": "holders, this round",
        "cv_samples": "routed samples, this round",
        "dead_share": "share of placements without a sample",
    }
    layers = [key for key in run.rounds[-1] if key.startswith("cv_layer_")]
    names |= {key: f"layer {key.removeprefix('cv_layer_')}" for key in layers}
    series, y_label = columns(run, names), "CV over experts, share"
    return line_figure("balance", "Balance", series, "round", y_label, note="0 is even")


def fitness(run: RunData) -> str:
    """Return the fitness matrix after the first, the middle and the last round."""
    if run.fitness is None:
        missing = "<p>This strategy keeps no fitness matrix.</p>"
        return figure("fitness", "Fitness", "", missing)
    found = run.fitness
    low, high = found.least, found.most
    if not low <= high:  # there is not one number in it
        low, high = 0.0, 1.0
    rounds, out = found.rounds, []
    middle = rounds[len(rounds) // 2]
    stages = {"before": rounds[0], "middle": middle, "end": rounds[-1]}
    for stage, after in stages.items():
        chart = heatmap(
            found.shown[after],
            x_label="expert",
            y_label="client",
            low=low,
            high=high,
            row_names=found.clients,
            name=f"fitness {stage}",
        )
        note = f"after round {after}"
        out.append(figure(f"fitness-{stage}", f"Fitness, {stage}", note, chart))
    return "".join(out)


def churn(run: RunData) -> str:
    """Return how much of the assignment is new in every round."""
    series = [Series(name="new pairs", x=run.numbers, y=run.churn())]
    note = "pairs of client and expert that were not together the last time"
    y_label = "share of pairs"
    return line_figure(
        "churn", "Assignment churn", series, "round", y_label, top=1.0, note=note
    )


def learned(run: RunData) -> str:
    """Return which classes each expert alone recognises."""
    note = "share of each class's test samples that the expert alone gets right"
    if run.learned is None:
        note = ""
        chart = (
            "<p>Not measured: it needs a test set on the server and one evaluation on "
            "it. Experts inside an encoder do not classify and have no such figure.</p>"
        )
    else:
        chart = heatmap(
            run.learned,
            x_label="class",
            y_label="expert",
            high=1.0,
            column_names=run.class_names(run.learned.shape[1]),
            name="classes",
        )
    return figure("classes", "What the experts learned", note, chart)


def clients(run: RunData) -> str:
    """Return the accuracy of every client, sorted, with the worst tenth."""
    series, means, notes = [], [], []
    for measure in ("client_local", "client_global"):
        found = sorted(run.last_clients(measure), key=lambda each: each[1])
        if not found:
            continue
        names, values = [name for name, _ in found], [value for _, value in found]
        ranks = range(1, len(values) + 1)
        series.append(Series(name=measure, x=ranks, y=values, labels=names))
        mean = float(np.mean(values))
        means.append(Series(name=f"{measure} (mean)", x=[0], y=[mean]))
        notes.append(f"{measure} {number(worst_tenth(values))}")
    chart = line_chart(
        series, x_label="clients, worst first", y_label="accuracy", top=1.0, dots=True
    )
    note = f"mean of the worst tenth: {', '.join(notes) or 'not measured yet'}"
    return figure("clients", "Accuracy per client", note, chart + legend(means))


def traffic(run: RunData) -> str:
    """Return bytes down and up per round."""
    names = {"bytes_down": "down", "bytes_up": "up"}
    if any(run.cumulated("fleet_bytes")):
        names["fleet_bytes"] = "for measuring on devices"
    series = columns(run, names, unit=MEGABYTE)
    note = "payload of all messages, counted from the messages"
    return line_figure("traffic", "Traffic", series, "round", "MB a round", note=note)


def seconds(run: RunData) -> str:
    """Return what a round takes, and the solver's part of it."""
    solver = [
        finite(solved.get("seconds")) if isinstance(solved, dict) else 0.0
        for solved in (record.get("solver") for record in run.rounds)
    ]
    slowest = [
        max(
            (
                finite(client.get("seconds_until_reply", 0.0))
                for client in record["clients"]
            ),
            default=0.0,
        )
        for record in run.rounds
    ]
    series = [
        *columns(run, {"seconds": "whole round"}),
        Series(name="slowest client", x=run.numbers, y=slowest),
        Series(name="solver", x=run.numbers, y=solver),
    ]
    note = "of the slowest client: from its order to its reply, as the log says it"
    return line_figure("seconds", "Time", series, "round", "seconds", note=note)


FIGURES: tuple[Callable[[RunData], str], ...] = (
    accuracy_figures,
    recall,
    confusion,
    clients,
    load,
    balance,
    churn,
    learned,
    fitness,
    traffic,
    seconds,
)
