"""The report of one run, and how a page is written."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from common.files import atomic_write
from common.settings.sections import data_label
from server_app.report.by_class import recall_table
from server_app.report.figures import FIGURES, measured, megabytes
from server_app.report.numbers import newest, number
from server_app.report.run_data import RunData
from server_app.report.style import page, state_line, table, tiles
from server_app.run_folder.run_state import COMPLETE, RUNNING

FILE = "report.html"
MOST_REMARKS = 50


def write_page(html: str, path: Path) -> None:
    """Write a page; half a surrogate pair in a name becomes a question mark."""
    with atomic_write(path) as file:
        file.write(html.encode("utf-8", "replace"))


def run_page(run: RunData) -> str:
    """Return the report of one run; while that goes on it loads itself again."""
    settings = run.settings
    data = data_label(settings.get("task", ""), settings.get("dataset", ""))
    title = f"{settings.get('strategy', '')} on {data}"
    cut = "devices' own data"
    if not settings.get("task"):
        cut = f"partition {settings.get('partition', '')}"
    what = (
        f"{run.name} · {cut} · seed {settings.get('seed', '')} · "
        f"round {run.numbers[-1]} of {settings.get('num-rounds', '?')}"
    )
    shown = [(name, number(value)) for name, value in headline(run, measured(run))]
    body = (
        f'<h1>{escape(title)}</h1><p class="soft">{escape(what)}</p>{_state(run)}'
        f"{tiles(shown)}"
        f'<h2>Figures</h2><div class="grid">{"".join(draw(run) for draw in FIGURES)}'
        f"</div>{recall_table(run)}{_remarks(run)}{_settings(run)}"
    )
    return page(f"{title}: {run.name}", body)


def _state(run: RunData) -> str:
    """Return whether the run goes on, and how it can if it does not."""
    running = run.state == RUNNING
    line = state_line(run.state, run.why, patience=run.patience if running else None)
    if running or run.state == COMPLETE:
        return line
    again = escape(f'To go on: resume-from="{run.folder}"')
    return f'{line}<p class="soft">{again}</p>'


def headline(run: RunData, accuracies: Sequence[str]) -> list[tuple[str, float]]:
    """Return what a run has come to: the accuracies, then what each run has."""
    return [
        *((measure, newest(run.column(measure))) for measure in accuracies),
        ("worst tenth, local", run.worst_tenth()),
        ("CV, cumulated", newest(run.column("cv_cumulative"))),
        ("CV of samples, last round", newest(run.column("cv_samples"))),
        ("dead placements, last round", newest(run.column("dead_share"))),
        ("MB in all", megabytes(run)[-1]),
        ("seconds in all", run.cumulated("seconds")[-1]),
    ]


def _remarks(run: RunData) -> str:
    found = run.remarks()
    title = '<h2 id="remarks">Rejected, relaxed, discarded</h2>'
    if not found:
        return f"{title}<p>Nothing: every reply was merged as planned.</p>"
    rows = [
        (str(len(rounds) or ""), _spans(rounds), text)
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
    if isinstance(versions := run.facts.get("versions"), dict):
        rows += [(f"version of {key}", str(value)) for key, value in versions.items()]
    return (
        "<details><summary>Settings and versions</summary>"
        f"{table(('setting', 'value'), rows)}</details>"
    )
