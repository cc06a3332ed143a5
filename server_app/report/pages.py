"""The two pages: one run in full, and several runs side by side."""

from collections.abc import Sequence
from html import escape

import numpy as np

from server_app.report.figures import ACCURACIES, FIGURES, MEGABYTE
from server_app.report.run_data import RunData, worst_tenth
from server_app.report.style import figure, page, table, tiles
from server_app.report.svg import Series, heatmap, legend, line_chart, number

MOST_REMARKS = 50


def run_page(run: RunData) -> str:
    """Return the report of one run; it loads itself again until the run is over."""
    settings = run.settings
    title = f"{settings.get('strategy', '')} on {settings.get('dataset', '')}"
    progress = f"round {run.numbers[-1]} of {settings.get('num-rounds', '?')}"
    head = (
        f"<h1>{escape(title)}</h1>"
        f'<p class="soft">{escape(run.name)} · partition '
        f"{escape(str(settings.get('partition', '')))} · seed "
        f"{escape(str(settings.get('seed', '')))} · {progress}</p>"
    )
    body = [
        head,
        tiles(_headline(run)),
        '<h2>Figures</h2><div class="grid">',
        *(draw(run) for draw in FIGURES),
        "</div>",
        _remarks(run),
        _settings(run),
    ]
    return page(f"{title}: {run.name}", "".join(body), refresh=not run.complete)


def _headline(run: RunData) -> list[tuple[str, str]]:
    items = [(m, number(_last(run.column(m)))) for m in ACCURACIES]
    local = run.last_clients("client_local")
    traffic = run.cumulated("bytes_down", "bytes_up")[-1] / MEGABYTE
    return [
        *items,
        ("worst tenth, local", number(worst_tenth(local))),
        ("CV, cumulated", number(run.column("cv_cumulative")[-1])),
        ("MB in all", number(traffic)),
        ("seconds in all", number(run.cumulated("seconds")[-1])),
    ]


def _remarks(run: RunData) -> str:
    found = run.remarks()
    title = '<h2 id="remarks">Rejected, relaxed, discarded</h2>'
    if not found:
        return f"{title}<p>Nothing: every reply was merged as planned.</p>"
    rows = [
        (str(len(rounds)), _spans(rounds), text)
        for text, rounds in found[:MOST_REMARKS]
    ]
    rest = len(found) - MOST_REMARKS
    more = f"<p>and {rest} more in metrics.jsonl</p>" if rest > 0 else ""
    return title + table(("times", "rounds", "what and why"), rows) + more


def _spans(rounds: Sequence[int]) -> str:
    """Return rounds as ``1-3, 7``; a long list ends in an ellipsis."""
    spans: list[list[int]] = []
    for number_of in rounds:
        if spans and number_of == spans[-1][1] + 1:
            spans[-1][1] = number_of
        else:
            spans.append([number_of, number_of])
    texts = [f"{a}" if a == b else f"{a}-{b}" for a, b in spans]
    return ", ".join(texts[:6]) + (", …" if len(texts) > 6 else "")


def _settings(run: RunData) -> str:
    rows = [(key, str(value)) for key, value in sorted(run.settings.items())]
    versions = run.facts.get("versions", {})
    rows += [(f"version of {key}", str(value)) for key, value in versions.items()]
    return (
        "<details><summary>Settings and versions</summary>"
        f"{table(('setting', 'value'), rows)}</details>"
    )


def comparison_page(runs: Sequence[RunData]) -> str:
    """Return several runs side by side."""
    names = _short_names(runs)
    figures = []
    for measure in ACCURACIES:
        for x_name, x_label in (("rounds", "round"), ("bytes", "MB in all")):
            series = [
                Series(name=name, x=_axis(run, x_name), y=run.column(measure))
                for name, run in zip(names, runs, strict=True)
            ]
            chart = line_chart(series, x_label=x_label, y_label=measure, top=1.0)
            caption = f"{measure} by {'round' if x_name == 'rounds' else 'traffic'}"
            name = f"{measure}-{x_name}"
            figures.append(figure(name, caption, "", chart + legend(series)))
    series = [
        Series(name=name, x=_axis(run, "rounds"), y=run.column("cv_cumulative"))
        for name, run in zip(names, runs, strict=True)
    ]
    chart = line_chart(series, x_label="round", y_label="CV of holders, cumulated")
    figures.append(figure("balance", "Balance", "0 is even", chart + legend(series)))
    most = max(float(run.load.max(initial=0)) for run in runs)
    for index, (name, run) in enumerate(zip(names, runs, strict=True)):
        chart = heatmap(
            run.load,
            x_label="round",
            y_label="expert",
            high=most,
            first_column=run.numbers[0],
            name="load",
        )
        figures.append(figure(f"load-{index}", f"Load: {name}", "", chart))
    header = ("run", "rounds", *ACCURACIES, "worst tenth", "CV cum.", "MB", "seconds")
    rows = [
        (name, str(len(run.rounds)), *(value for _, value in _headline(run)))
        for name, run in zip(names, runs, strict=True)
    ]
    body = (
        f"<h1>{len(runs)} runs</h1>{table(header, rows)}"
        f'<h2>Figures</h2><div class="grid">{"".join(figures)}</div>'
        f"{_differences(names, runs)}"
    )
    return page("Runs compared", body)


def _axis(run: RunData, name: str) -> list[float]:
    if name == "rounds":
        return [float(n) for n in run.numbers]
    return [b / MEGABYTE for b in run.cumulated("bytes_down", "bytes_up")]


def _last(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return known[-1] if known else float("nan")


def _short_names(runs: Sequence[RunData]) -> list[str]:
    """Return the strategies where these tell the runs apart, else the runs' names."""
    names = [str(run.settings.get("strategy", run.name)) for run in runs]
    return names if len(set(names)) == len(names) else [run.name for run in runs]


def _differences(names: Sequence[str], runs: Sequence[RunData]) -> str:
    keys = sorted({key for run in runs for key in run.settings})
    rows = []
    for key in keys:
        values = [str(run.settings.get(key, "–")) for run in runs]
        if len(set(values)) > 1:
            rows.append((key, *values))
    if not rows:
        return ""
    return "<h2>Settings that differ</h2>" + table(("setting", *names), rows)
