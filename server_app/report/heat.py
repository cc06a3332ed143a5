"""Heatmaps as inline SVG; colours come from the page."""

import json
import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

from server_app.report.numbers import number
from server_app.report.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    svg_of,
    text_at,
    titles_of,
)

MAX_COLUMNS, MAX_ROWS = 96, 64
LEVELS = 16
LETTER, MAX_LETTERS = 7, 12
"""Room for a letter of a name beside a heatmap, and how many of them are shown."""


def heatmap(
    values: ArrayLike,
    *,
    x_label: str,
    y_label: str,
    low: float | None = None,
    high: float | None = None,
    row_names: Sequence[str] = (),
    column_names: Sequence[str] = (),
    name: str = "heat",
) -> str:
    """Return a matrix as cells whose ink grows with the value; NaN stays empty.

    Matrices of more than 64 rows or 96 columns are averaged down.

    Parameters
    ----------
    values : array_like, shape (R, C)
        Row 0 is drawn at the top.
    low, high : float, optional
        Values of no and of full ink; by default 0 and the largest value.
    row_names, column_names : sequence of str, lengths R and C, optional
        In place of the numbers; long names are cut in the middle.
    """
    full = np.atleast_2d(np.asarray(values, dtype=np.float64))
    shown = _binned(_binned(full, MAX_ROWS, 0), MAX_COLUMNS, 1)
    finite = shown[np.isfinite(shown)]
    top = high if high is not None else float(finite.max(initial=0.0))
    bottom = low if low is not None else 0.0
    span = top - bottom if top > bottom else 1.0
    rows, columns = shown.shape
    height = max(HEIGHT - TOP - BOTTOM, min(12 * rows, 420))
    columns_all = column_names or _numbers(full.shape[1])
    rows_all = row_names or _numbers(full.shape[0])
    across, down = _cut(columns_all), _cut(rows_all)
    left = max(LEFT, 24 + LETTER * max(map(len, down)))
    width = WIDTH - left - RIGHT
    cell_w, cell_h = width / columns, height / rows
    # Edges are rounded, not widths: neighbours share theirs, and no seam shows.
    xs = [round(left + c * cell_w, 1) for c in range(columns + 1)]
    ys = [round(TOP + r * cell_h, 1) for r in range(rows + 1)]
    level = np.clip(np.round((shown - bottom) / span * LEVELS), 0, LEVELS)
    paths = []
    for step in range(1, LEVELS + 1):
        # One path per shade: a few bytes per cell instead of an element.
        cells = "".join(
            f"M{xs[c]} {ys[r]}H{xs[c + 1]}V{ys[r + 1]}H{xs[c]}z"
            for r, c in np.argwhere(level == step)
        )
        if cells:
            paths.append(f'<path fill-opacity="{step / LEVELS:.3f}" d="{cells}"/>')
    axis = [
        text_at(left - 6, TOP + (cell + 0.5) * cell_h + 4, down[row], "end")
        for cell, row in _labels(full.shape[0], rows, height, 15)
    ]
    room = max(34.0, LETTER * max(map(len, across)) + 4)
    axis += [
        text_at(
            left + (cell + 0.5) * cell_w,
            TOP + height + 14,
            across[column],
            "middle",
        )
        for cell, column in _labels(full.shape[1], columns, width, room)
    ]
    frame = (
        f'<rect class="frame" x="{left}" y="{TOP}" width="{width}" '
        f'height="{height:.0f}"/>'
    )
    titles = titles_of(x_label, y_label, TOP + height, left)
    body = f'{frame}<g class="heat">{"".join(paths)}</g>{"".join(axis)}{titles}'
    scale = (
        f'<p class="scale">{number(bottom)} <span class="ramp"></span> '
        f"{number(top)}</p>"
    )
    told = {
        "box": f"{left} {TOP} {width} {height}",
        "rows": json.dumps(_spans(rows_all, rows)),
        "columns": json.dumps(_spans(columns_all, columns)),
        "cells": ";".join(" ".join(map(number, row)) for row in shown.tolist()),
        "axes": json.dumps([y_label, x_label]),
    }
    data = "".join(f' data-{k}="{escape(v)}"' for k, v in told.items())
    title = f"{name}: {y_label} by {x_label}"
    return svg_of(title, TOP + height + BOTTOM, body, data) + scale


def _numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def _spans(names: Sequence[str], shown: int) -> list[str]:
    """Return what each row or column drawn is of, those averaged as spans."""
    pieces = np.array_split(np.arange(len(names)), shown)
    ends = [(names[piece[0]], names[piece[-1]]) for piece in pieces]
    return [first if first == last else f"{first} … {last}" for first, last in ends]


def _cut(names: Sequence[str]) -> list[str]:
    """Return names with room beside a heatmap: of long ones both ends, which differ."""
    head = MAX_LETTERS // 2
    return [
        n if len(n) <= MAX_LETTERS else f"{n[:head]}…{n[head + 1 - MAX_LETTERS :]}"
        for n in names
    ]


def _binned(values: NDArray[np.float64], most: int, axis: int) -> NDArray[np.float64]:
    size = values.shape[axis]
    if size <= most:
        return values
    means = []
    for piece in np.array_split(values, most, axis=axis):
        known = np.isfinite(piece).sum(axis=axis)
        total = np.nansum(piece, axis=axis)
        means.append(np.where(known > 0, total / np.maximum(known, 1), np.nan))
    return np.stack(means, axis=axis)


def _labels(full: int, shown: int, room: float, each: float) -> list[tuple[int, int]]:
    """Return (cell, original index) for as many labels as there is room for."""
    step = max(1, math.ceil(shown * each / room))
    starts = [piece[0] for piece in np.array_split(np.arange(full), shown)]
    return [(cell, int(starts[cell])) for cell in range(0, shown, step)]
