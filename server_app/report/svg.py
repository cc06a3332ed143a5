"""Line charts, dot charts and heatmaps as inline SVG; colours come from the page.

Small own generator: a chart is a few hundred bytes of markup that needs no library on
the server, stays sharp at any zoom and follows the reader's theme through CSS. Sizes
are in units of a 380-unit-wide view box, drawn at 340 to 420 CSS pixels, so a font size
of 11 is about 11 pixels. Nothing here knows what the numbers mean.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTH, HEIGHT = 380, 216
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 34
MAX_POINTS = 300
MAX_COLUMNS, MAX_ROWS = 96, 64
LEVELS = 16
COLOURS = 8
LETTER, MAX_LETTERS = 7, 12
"""Room for a letter of a name beside a heatmap, and how many of them are shown."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart.

    Attributes
    ----------
    name : str
    x, y : sequence of float
        Equally long; a NaN in ``y`` is left out.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]


def number(value: float) -> str:
    """Return a number as short as it can be read: 1200, 12.3, 0.0042."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    if not 1e-9 < abs(value) < 1e9:
        return f"{value:.2g}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    digits = min(4, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{value:.0f}"


def newest(values: Sequence[float]) -> float:
    """Return the last number that is known; NaN where none is."""
    return next((v for v in reversed(values) if math.isfinite(v)), math.nan)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers from ``low`` to at least ``high``, about ``wanted``."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low, low + 1]
    raw = span / max(1, wanted - 1)
    power = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 0.0
    if not (power > 0 and math.isfinite(4 * span) and low + raw > low):
        return [low, high]  # beyond what round numbers can be made of
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.floor(low / step)
    last = math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def colour(index: int) -> str:
    """Return the CSS classes of a series; beyond the palette, dashes tell apart."""
    dashed = " dash" if (index // COLOURS) % 2 else ""
    return f"s{index % COLOURS}{dashed}"


def line_chart(
    series: Iterable[Series],
    *,
    x_label: str,
    y_label: str,
    top: float | None = None,
    dots: bool = False,
) -> str:
    """Return lines, or a dot for every value, over a numeric axis; y starts at 0.

    Parameters
    ----------
    top : float, optional
        Upper end of the y axis at most; it follows the data below that.
    dots : bool
        Whether values are dots. Lines are thinned to ``MAX_POINTS``, dots are not.
    """
    shown = [_known(one, None if dots else MAX_POINTS) for one in series]
    frame = _Frame(shown, x_label, y_label, top)
    radius = 1.5 if dots and max((len(one.x) for one in shown), default=0) >= 120 else 3
    marks = []
    for index, one in enumerate(shown):
        points = [(frame.x(x), frame.y(y)) for x, y in zip(one.x, one.y, strict=True)]
        if len(points) > 1 and not dots:
            path = " ".join(f"{x},{y}" for x, y in points)
            marks.append(f'<polyline class="line {colour(index)}" points="{path}"/>')
        else:
            marks += [
                f'<circle class="dot {colour(index)}" cx="{x}" cy="{y}" r="{radius}"/>'
                for x, y in points
            ]
    return frame.svg("".join(marks))


def legend(series: Sequence[Series]) -> str:
    """Return the names of the series with their newest value, as HTML."""
    items = "".join(
        f'<li><svg class="key" viewBox="0 0 18 8" aria-hidden="true"><path class="line '
        f'{colour(index)}" d="M0 4h18"/></svg>{escape(one.name)}'
        f" <b>{number(newest(one.y))}</b></li>"
        for index, one in enumerate(series)
    )
    return f'<ul class="legend">{items}</ul>'


def heatmap(
    values: ArrayLike,
    *,
    x_label: str,
    y_label: str,
    low: float | None = None,
    high: float | None = None,
    first_column: int = 0,
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
    first_column : int
        Number of the first column, for the axis.
    row_names, column_names : sequence of str, lengths R and C, optional
        In place of the numbers; long names are cut.
    """
    full = np.atleast_2d(np.asarray(values, dtype=np.float64))
    shown = _binned(_binned(full, MAX_ROWS, 0), MAX_COLUMNS, 1)
    finite = shown[np.isfinite(shown)]
    top = high if high is not None else float(finite.max(initial=0.0))
    bottom = low if low is not None else 0.0
    span = top - bottom if top > bottom else 1.0
    rows, columns = shown.shape
    height = max(HEIGHT - TOP - BOTTOM, min(12 * rows, 420))
    across = _cut(column_names) or range(first_column, first_column + full.shape[1])
    down = _cut(row_names) or range(full.shape[0])
    left = max(LEFT, 24 + LETTER * max(map(len, map(str, down))))
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
        _text(left - 6, TOP + (cell + 0.5) * cell_h + 4, str(down[row]), "end")
        for cell, row in _labels(full.shape[0], rows, height, 15)
    ]
    room = max(34.0, LETTER * max(map(len, map(str, across))) + 4)
    axis += [
        _text(
            left + (cell + 0.5) * cell_w,
            TOP + height + 14,
            str(across[column]),
            "middle",
        )
        for cell, column in _labels(full.shape[1], columns, width, room)
    ]
    frame = (
        f'<rect class="frame" x="{left}" y="{TOP}" width="{width}" '
        f'height="{height:.0f}"/>'
    )
    titles = _titles(x_label, y_label, TOP + height, left)
    body = f'{frame}<g class="heat">{"".join(paths)}</g>{"".join(axis)}{titles}'
    scale = (
        f'<p class="scale">{number(bottom)} <span class="ramp"></span> '
        f"{number(top)}</p>"
    )
    return _svg(f"{name}: {y_label} by {x_label}", TOP + height + BOTTOM, body) + scale


class _Frame:
    """Axes of a chart: data to view box."""

    def __init__(
        self, series: Sequence[Series], x_label: str, y_label: str, top: float | None
    ) -> None:
        xs = [x for one in series for x in one.x]
        ys = [y for one in series for y in one.y]
        self._labels = (x_label, y_label)
        self._whole = all(x == round(x) for x in xs)
        self._x0, self._x1 = min(xs, default=0.0), max(xs, default=1.0)
        if self._x1 == self._x0:
            # Half of one vanishes beside 1e16.
            room = 0.5 if abs(self._x0) < 1e15 else abs(self._x0) / 2
            self._x0, self._x1 = self._x0 - room, self._x1 + room
        self._y_ticks = ticks(0.0, max([*ys, 1e-9]))
        if top is not None:
            self._y_ticks = [t for t in self._y_ticks if t <= top + 1e-9] or [0.0, top]
            if self._y_ticks[-1] < max([*ys, 0.0]):
                self._y_ticks.append(top)
        self._y1 = self._y_ticks[-1]

    def x(self, value: float) -> float:
        """Return a horizontal position."""
        share = (value - self._x0) / (self._x1 - self._x0)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """Return a vertical position."""
        return round(HEIGHT - BOTTOM - value / self._y1 * (HEIGHT - TOP - BOTTOM), 1)

    def svg(self, marks: str) -> str:
        """Return the chart with its grid, ticks and titles."""
        grid = "".join(
            f'<path class="grid" d="M{LEFT} {self.y(t)}H{WIDTH - RIGHT}"/>'
            + _text(LEFT - 6, self.y(t) + 4, number(t), "end")
            for t in self._y_ticks
        )
        across = [t for t in ticks(self._x0, self._x1) if self._x0 <= t <= self._x1]
        if self._whole:  # there is no client one and a half
            across = [t for t in across if t == round(t)]
        axis = "".join(
            _text(self.x(t), HEIGHT - BOTTOM + 14, number(t), "middle") for t in across
        )
        x_label, y_label = self._labels
        titles = _titles(x_label, y_label, HEIGHT - BOTTOM)
        return _svg(f"{y_label} by {x_label}", HEIGHT, grid + axis + titles + marks)


def _svg(title: str, height: float, body: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">{body}</svg>'
    )


def _cut(names: Sequence[str]) -> list[str]:
    return [n if len(n) <= MAX_LETTERS else f"{n[: MAX_LETTERS - 1]}…" for n in names]


def _titles(x_label: str, y_label: str, bottom: float, left: int = LEFT) -> str:
    middle = (left + WIDTH - RIGHT) / 2
    across = _text(middle, bottom + 29, x_label, "middle", "title")
    height = (TOP + bottom) / 2
    return across + (
        f'<text class="title" text-anchor="middle" '
        f'transform="translate(11 {height:.0f}) rotate(-90)">{escape(y_label)}</text>'
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _known(series: Series, most: int | None) -> Series:
    """Return the points that can be drawn, every n-th of them if they are too many."""
    points = [
        (x, y)
        for x, y in zip(series.x, series.y, strict=True)
        if math.isfinite(x) and math.isfinite(y)
    ]
    step = max(1, math.ceil(len(points) / (most or math.inf)))
    # Counted from the end: the newest point is always there.
    kept = points[::-1][::step][::-1]
    return Series(name=series.name, x=[x for x, _ in kept], y=[y for _, y in kept])


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
