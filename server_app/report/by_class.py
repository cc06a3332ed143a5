"""What was found of every class: recall over rounds, a table, the confusion matrix.

An accuracy says nothing of a class that is rare; recall by class does.
"""

import math

import numpy as np

from server_app.report.heat import heatmap
from server_app.report.numbers import number
from server_app.report.run_data import RunData
from server_app.report.style import figure, table
from server_app.report.svg import Series, legend, line_chart

MOST_LINES = 8
"""Classes that get a line each; more are drawn as a heatmap."""
MOST_ROWS = 50
RECALLS = {
    "recall": "server's predictor",
    "local_recall": "clients' models, on what each holds out",
}


def recall(run: RunData) -> str:
    """Return recall by class over rounds, of the server's predictor if it is known."""
    name = next((n for n in RECALLS if run.measured_rounds(n)), None)
    if name is None:
        return figure("recall", "Recall by class", "", "<p>Not measured yet.</p>")
    shares, rounds = run.shares(name), run.measured_rounds(name)
    note = f"share of each class's samples that were found: {RECALLS[name]}"
    names = run.class_names(len(shares))
    if len(shares) > MOST_LINES:
        chart = heatmap(
            shares,
            x_label="measured round",
            y_label="class",
            high=1.0,
            row_names=names,
            column_names=[str(number) for number in rounds],
            name="recall",
        )
        return figure("recall", "Recall by class", note, chart)
    series = [
        Series(name=text, x=rounds, y=row.tolist())
        for text, row in zip(names, shares, strict=True)
    ]
    chart = line_chart(series, x_label="round", y_label="recall", top=1.0)
    return figure("recall", "Recall by class", note, chart + legend(series))


def confusion(run: RunData) -> str:
    """Return the newest confusion matrix, every row as shares of its class."""
    caption = "Confusion of the server's predictor"
    if run.confusion is None:
        missing = "<p>Not measured yet, or of too many classes.</p>"
        return figure("confusion", caption, "", missing)
    sums = run.confusion.sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = run.confusion / sums
    names = run.class_names(len(shares))
    chart = heatmap(
        shares,
        x_label="answer",
        y_label="true class",
        high=1.0,
        row_names=names,
        column_names=names,
        name="confusion",
    )
    return figure("confusion", caption, "share of each class's samples", chart)


def recall_table(run: RunData) -> str:
    """Return the newest recall of every class, the worst first; empty if unknown."""
    columns = {name: run.shares(name) for name in RECALLS if run.measured_rounds(name)}
    if not columns:
        return ""
    newest = [shares[:, -1].tolist() for shares in columns.values()]
    count = max(map(len, newest))
    rows = [
        (name, [each[k] if k < len(each) else math.nan for each in newest])
        for k, name in enumerate(run.class_names(count))
    ]
    rows.sort(key=lambda row: math.inf if math.isnan(row[1][0]) else row[1][0])
    shown = [(name, *map(number, shares)) for name, shares in rows[:MOST_ROWS]]
    rest = len(rows) - MOST_ROWS
    more = f"<p>and {rest} more in metrics.jsonl</p>" if rest > 0 else ""
    header = ("class", *(f"recall: {RECALLS[name]}" for name in columns))
    return f'<h2 id="classes-found">Recall by class</h2>{table(header, shown)}{more}'
