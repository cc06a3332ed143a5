"""The figures of one run: what each of them shows, and why it may be missing."""

from collections.abc import Callable

import numpy as np

from server_app.report.run_data import RunData, worst_tenth
from server_app.report.style import figure
from server_app.report.svg import Series, dot_chart, heatmap, legend, line_chart, number

ACCURACIES = ("server_global", "client_global", "client_local")
MEGABYTE = 1e6


def accuracy_figures(run: RunData) -> str:
    """Return accuracy over rounds, over cumulated megabytes and over time."""
    megabytes = [b / MEGABYTE for b in run.cumulated("bytes_down", "bytes_up")]
    axes: list[tuple[str, str, list[float], str]] = [
        ("rounds", "Accuracy by round", [float(n) for n in run.numbers], "round"),
        ("bytes", "Accuracy by traffic", megabytes, "MB sent and received in all"),
        ("seconds", "Accuracy by time", run.cumulated("seconds"), "seconds of rounds"),
    ]
    out = []
    for name, caption, x, x_label in axes:
        series = [Series(name=m, x=x, y=run.column(m)) for m in ACCURACIES]
        chart = line_chart(series, x_label=x_label, y_label="accuracy", top=1.0)
        out.append(figure(f"accuracy-{name}", caption, "", chart + legend(series)))
    return "".join(out)


def load_heatmap(run: RunData) -> str:
    """Return how many clients held each expert in each round."""
    chart = heatmap(
        run.load,
        x_label="round",
        y_label="expert",
        first_column=run.numbers[0],
        name="load",
    )
    note = "clients that held the expert and replied"
    return figure("load", "Load of the experts", note, chart)


def balance(run: RunData) -> str:
    """Return the coefficients of variation of the load."""
    names = {
        "cv_cumulative": "holders, summed over rounds",
        "cv_round": "holders, this round",
        "cv_samples": "routed samples, this round",
    }
    layers = [key for key in run.rounds[-1] if key.startswith("cv_layer_")]
    names |= {key: f"layer {key.removeprefix('cv_layer_')}" for key in layers}
    series = [
        Series(name=text, x=run.numbers, y=run.column(key))
        for key, text in names.items()
    ]
    chart = line_chart(series, x_label="round", y_label="CV over experts")
    return figure("balance", "Balance", "0 is even", chart + legend(series))


def fitness(run: RunData) -> str:
    """Return the fitness matrix after the first, the middle and the last round."""
    if run.fitness is None:
        return figure(
            "fitness", "Fitness", "", "<p>This strategy keeps no fitness matrix.</p>"
        )
    rounds = len(run.fitness)
    stages = {"before": 0, "middle": rounds // 2, "end": rounds - 1}
    low, high = float(run.fitness.min()), float(run.fitness.max())
    out = []
    for stage, index in stages.items():
        chart = heatmap(
            run.fitness[index],
            x_label="expert",
            y_label="client",
            low=low,
            high=high,
            name=f"fitness {stage}",
        )
        number_of = run.numbers[min(index, len(run.numbers) - 1)]
        note = f"after round {number_of}"
        out.append(figure(f"fitness-{stage}", f"Fitness, {stage}", note, chart))
    return "".join(out)


def churn(run: RunData) -> str:
    """Return how much of the assignment is new in every round."""
    shares = run.churn()
    if not shares:
        return ""
    series = [Series(name="new pairs", x=run.numbers[: len(shares)], y=shares)]
    chart = line_chart(series, x_label="round", y_label="share of pairs", top=1.0)
    note = "pairs of client and expert that were not together the last time"
    return figure("churn", "Assignment churn", note, chart + legend(series))


def learned(run: RunData) -> str:
    """Return which classes each expert alone recognises."""
    if run.learned is None:
        return figure(
            "classes",
            "What the experts learned",
            "",
            "<p>Not measured yet: it comes with the first evaluation, and never for "
            "experts inside an encoder, which do not classify.</p>",
        )
    chart = heatmap(
        run.learned, x_label="class", y_label="expert", high=1.0, name="classes"
    )
    note = "share of each class's test samples that the expert alone gets right"
    return figure("classes", "What the experts learned", note, chart)


def clients(run: RunData) -> str:
    """Return the accuracy of every client, sorted, with the worst tenth."""
    series, notes = [], []
    for measure in ("client_local", "client_global"):
        values = sorted(run.last_clients(measure))
        ranks = [float(i + 1) for i in range(len(values))]
        series.append(Series(name=measure, x=ranks, y=values))
        if values:
            notes.append(f"{measure} {number(worst_tenth(values))}")
    chart = dot_chart(series, x_label="clients, worst first", y_label="accuracy")
    note = f"mean of the worst tenth: {', '.join(notes) or 'not measured yet'}"
    means = [
        Series(
            name=f"{s.name} (mean)", x=[0], y=[float(np.mean(s.y)) if s.y else np.nan]
        )
        for s in series
    ]
    return figure("clients", "Accuracy per client", note, chart + legend(means))


def traffic(run: RunData) -> str:
    """Return bytes down and up per round."""
    series = [
        Series(
            name=text,
            x=run.numbers,
            y=[b / MEGABYTE for b in run.column(key)],
        )
        for key, text in (("bytes_down", "down"), ("bytes_up", "up"))
    ]
    chart = line_chart(series, x_label="round", y_label="MB a round")
    note = "payload of all messages, counted from the messages"
    return figure("traffic", "Traffic", note, chart + legend(series))


def seconds(run: RunData) -> str:
    """Return what a round takes, and the solver's part of it."""
    solver = [
        float(record["solver"]["seconds"]) if record.get("solver") else 0.0
        for record in run.rounds
    ]
    slowest = [
        max((c["seconds"] for c in record["clients"]), default=0.0)
        for record in run.rounds
    ]
    series = [
        Series(name="whole round", x=run.numbers, y=run.column("seconds")),
        Series(name="slowest client", x=run.numbers, y=slowest),
        Series(name="solver", x=run.numbers, y=solver),
    ]
    chart = line_chart(series, x_label="round", y_label="seconds")
    return figure("seconds", "Time", "", chart + legend(series))


FIGURES: tuple[Callable[[RunData], str], ...] = (
    accuracy_figures,
    clients,
    load_heatmap,
    balance,
    churn,
    learned,
    fitness,
    traffic,
    seconds,
)
