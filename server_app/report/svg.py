"""Line charts and dot charts as inline SVG; colours come from the page.

Small own generator: a chart is a few hundred bytes of markup that needs no library on
the server, stays sharp at any zoom and follows the reader's theme through CSS. Sizes
are in units of a 380-unit-wide view box, drawn at 340 to 420 CSS pixels, so a font size
of 11 is about 11 pixels. Nothing here knows what the numbers mean.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from server_app.report.numbers import marks, newest, number, ticks, with_half

WIDTH, HEIGHT = 380, 216
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 34
MAX_POINTS = 300
COLOURS, ALIKE = 8, 4
"""How many colours, and how many series in a row have the same dashes."""
DASHES = ("", "d1", "d2", "d3")


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart.

    Attributes
    ----------
    name : str
    x, y : sequence of float
        Equally long; a NaN in ``y`` is left out.
    half : sequence of float, optional
        Half the width of the interval about each value, drawn as a band.
    labels : sequence of str, optional
        What each value is of, said beside it.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    half: Sequence[float] = ()
    labels: Sequence[str] = ()


def colour(index: int) -> str:
    """Return the CSS classes of a series.

    The colours of four in a row are told apart by any reader; the next four have other
    dashes as well.
    """
    return f"s{index % COLOURS} {DASHES[index // ALIKE % len(DASHES)]}".rstrip()


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
    drawn = []
    for index, one in enumerate(shown):
        points = [(frame.x(x), frame.y(y)) for x, y in zip(one.x, one.y, strict=True)]
        path = " ".join(f"{x},{y}" for x, y in points)
        if len(points) > 1 and not dots:
            shape = f'<polyline class="line {colour(index)}" points="{path}"/>'
        else:
            shape = "".join(
                f'<circle class="dot {colour(index)}" cx="{x}" cy="{y}" r="{radius}"/>'
                for x, y in points
            )
        drawn.append(f"<g{_told(one)}>{_band(frame, one, index)}{shape}</g>")
    return frame.svg("".join(drawn))


def _told(series: Series) -> str:
    """Return what the page's script says of each point, as attributes."""
    halves = series.half or [math.nan] * len(series.x)
    values = [
        with_half(y, half if math.isfinite(half) else None).replace(" ", "\u00a0")
        for y, half in zip(series.y, halves, strict=True)
    ]
    told = {
        "name": series.name,
        "x": " ".join(map(number, series.x)),
        "y": " ".join(values),
        "of": "\t".join(" ".join(label.split()) for label in series.labels),
    }
    return "".join(f' data-{k}="{escape(v)}"' for k, v in told.items() if v)


def _band(frame: "_Frame", series: Series, index: int) -> str:
    """Return the intervals of a series, where all of it has them."""
    halves = zip(series.x, series.y, series.half, strict=False)
    edges = [
        (frame.x(x), frame.y(max(y - half, 0.0)), frame.y(min(y + half, frame.top)))
        for x, y, half in halves
        if math.isfinite(half)
    ]
    if len(edges) < 2:
        return ""
    lower = " ".join(f"{x},{low}" for x, low, _ in edges)
    upper = " ".join(f"{x},{high}" for x, _, high in reversed(edges))
    return f'<polygon class="band s{index % COLOURS}" points="{lower} {upper}"/>'


def legend(series: Sequence[Series]) -> str:
    """Return the names of the series with their newest value, as HTML."""
    items = "".join(
        f'<li><svg class="key" viewBox="0 0 26 8" aria-hidden="true"><path class="line '
        f'{colour(index)}" d="M0 4h26"/></svg>{escape(one.name)}'
        f" <b>{number(newest(one.y))}</b></li>"
        for index, one in enumerate(series)
    )
    return f'<ul class="legend">{items}</ul>'


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
        most = max(ys, default=0.0)
        self._y_ticks = ticks(0.0, most if most > 1e-9 else 1.0)
        if top is not None:
            self._y_ticks = [t for t in self._y_ticks if t <= top + 1e-9] or [0.0, top]
            if self._y_ticks[-1] < max([*ys, 0.0]):
                self._y_ticks.append(top)
        self.top = self._y_ticks[-1]

    def x(self, value: float) -> float:
        """Return a horizontal position."""
        share = (value - self._x0) / (self._x1 - self._x0)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """Return a vertical position."""
        return round(HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM), 1)

    def svg(self, drawn: str) -> str:
        """Return the chart with its grid, ticks and titles."""
        grid = "".join(
            f'<path class="grid" d="M{LEFT} {self.y(t)}H{WIDTH - RIGHT}"/>'
            + text_at(LEFT - 6, self.y(t) + 4, mark, "end")
            for t, mark in zip(self._y_ticks, marks(self._y_ticks), strict=True)
        )
        across = [t for t in ticks(self._x0, self._x1) if self._x0 <= t <= self._x1]
        if self._whole:  # there is no client one and a half
            across = [t for t in across if t == round(t)]
        axis = "".join(
            text_at(self.x(t), HEIGHT - BOTTOM + 14, mark, "middle")
            for t, mark in zip(across, marks(across), strict=True)
        )
        x_label, y_label = self._labels
        titles = titles_of(x_label, y_label, HEIGHT - BOTTOM)
        title = f"{y_label} by {x_label}"
        told = f' data-label="{escape(x_label)}"'
        return svg_of(title, HEIGHT, grid + axis + titles + drawn, told)


def svg_of(title: str, height: float, body: str, told: str = "") -> str:
    """Return a chart of its title, height and content."""
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}"{told}>{body}</svg>'
    )


def titles_of(x_label: str, y_label: str, bottom: float, left: int = LEFT) -> str:
    """Return the titles of both axes."""
    middle = (left + WIDTH - RIGHT) / 2
    across = text_at(middle, bottom + 29, x_label, "middle", "title")
    height = (TOP + bottom) / 2
    return across + (
        f'<text class="title" text-anchor="middle" '
        f'transform="translate(11 {height:.0f}) rotate(-90)">{escape(y_label)}</text>'
    )


def text_at(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    """Return a text at a place."""
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _known(series: Series, most: int | None) -> Series:
    """Return the points that can be drawn, every n-th of them if they are too many."""
    points = [
        at
        for at, (x, y) in enumerate(zip(series.x, series.y, strict=True))
        if math.isfinite(x) and math.isfinite(y)
    ]
    step = max(1, math.ceil(len(points) / (most or math.inf)))
    # Counted from the end: the newest point is always there.
    kept = points[::-1][::step][::-1]
    return Series(
        name=series.name,
        x=[series.x[at] for at in kept],
        y=[series.y[at] for at in kept],
        half=[series.half[at] for at in kept] if series.half else (),
        labels=[series.labels[at] for at in kept] if series.labels else (),
    )
