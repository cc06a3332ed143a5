"""The study's figures: what the tables say, to look at."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib

from benchmarks.study.cells import ACCURACIES, Cell
from benchmarks.study.tables import Lines
from benchmarks.study.variants import BASELINE
from common.metrics import mean_interval

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

COLOURS = ("#4d4d4d", "#d55e00", "#0072b2", "#009e73", "#b0568f", "#b8860b")
DASHES = ("solid", "dashed", "dotted")
HATCHES = ("", "///", "...")
DPI = 110
SERVER = ACCURACIES[0]
DENSE_LINES: dict[str, dict[str, Any]] = {
    "fedavg": {"color": "black", "linestyle": "dotted", "linewidth": 1.4},
    BASELINE: {"color": "black", "linestyle": "solid", "linewidth": 1.4},
}
"""The dense model without and with the settings for clients of other label mixes."""


def draw(cells: Sequence[Cell], lines: Lines, folder: Path) -> list[Path]:
    """Draw what the runs allow; return the files written."""
    run = [c for c in cells if c.key in lines]
    main = [c for c in run if c.table == "main"]
    figures = {}
    if main or (differing := [c for c in run if c.table in ("shift", "skew")]):
        figures["accuracy.png"] = _bars(main or differing, lines)
    if main:
        figures["curves.png"] = _curves(main, lines)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=DPI)
        plt.close(figure)
    return [folder / name for name in figures]


def _bars(cells: Sequence[Cell], lines: Lines) -> Figure:
    """Return accuracies by cell and strategy, with their intervals.

    The dense models that everything is held against are lines across each cell.
    """
    places = list(dict.fromkeys((c.dataset, c.partition) for c in cells))
    labels = list(dict.fromkeys(c.label for c in cells))
    bars = [label for label in labels if label not in DENSE_LINES]
    differ = any("served" in lines[c.key] for c in cells)
    figure, axes = plt.subplots(
        len(ACCURACIES),
        1,
        figsize=(max(9.5, 0.85 * len(places)), 7.5),
        sharex=True,
        layout="constrained",
    )
    width = 0.8 / len(bars)
    for axis, measure in zip(axes, ACCURACIES, strict=True):
        for label in labels:
            found = _intervals(cells, lines, label, measure)
            at = [i for i, place in enumerate(places) if place in found]
            heights = [found[places[i]][0] for i in at]
            errors = [found[places[i]][1] or 0.0 for i in at]
            if label in DENSE_LINES:
                ends = [i - 0.44 for i in at], [i + 0.44 for i in at]
                axis.hlines(heights, *ends, label=label, zorder=3, **DENSE_LINES[label])
                continue
            index = bars.index(label)
            axis.bar(
                [i + (index - len(bars) / 2 + 0.5) * width for i in at],
                heights,
                width,
                yerr=errors,
                label=label,
                color=COLOURS[index % len(COLOURS)],
                hatch=HATCHES[index // len(COLOURS)],
                edgecolor="white",
                error_kw={"elinewidth": 0.8},
            )
        axis.set_ylabel("served" if differ and measure == SERVER else measure)
        axis.set_ylim(0, 1)
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    names = [f"{d}\n{p}".replace("+", "\n") for d, p in places]
    axes[-1].set_xticks(range(len(places)), names, fontsize=7.5)
    figure.legend(
        *axes[-1].get_legend_handles_labels(), loc="outside upper center", ncols=6
    )
    return figure


def _intervals(
    cells: Sequence[Cell], lines: Lines, label: str, measure: str
) -> dict[tuple[str, str], tuple[float, float | None]]:
    """Return mean and half interval of a strategy in every cell it was measured in."""
    values = defaultdict(list)
    for c in cells:
        value = lines[c.key][measure]
        if measure == SERVER:  # the one model, or that of the client's group
            value = lines[c.key].get("served", value)
        if c.label == label and value is not None:
            values[c.dataset, c.partition].append(value)
    return {place: mean_interval(found) for place, found in values.items()}


def _curves(cells: Sequence[Cell], lines: Lines) -> Figure:
    """Return server_global over traffic, one panel per cell, mean over seeds."""
    datasets = list(dict.fromkeys(c.dataset for c in cells))
    partitions = list(dict.fromkeys(c.partition for c in cells))
    labels = list(dict.fromkeys(c.label for c in cells))
    figure, axes = plt.subplots(
        len(datasets),
        len(partitions),
        figsize=(3.2 * len(partitions), 2.4 * len(datasets)),
        squeeze=False,
        layout="constrained",
    )
    for row, dataset in zip(axes, datasets, strict=True):
        for axis, part in zip(row, partitions, strict=True):
            for index, label in enumerate(labels):
                points = defaultdict(list)
                for c in cells:
                    if (c.dataset, c.partition, c.label) == (dataset, part, label):
                        for number, megabytes, server, *_ in lines[c.key]["curve"]:
                            if server is not None:
                                points[number].append((megabytes, server))
                means = [
                    [mean(values) for values in zip(*points[n], strict=True)]
                    for n in sorted(points)
                ]
                axis.plot(
                    [x for x, _ in means],
                    [y for _, y in means],
                    color=COLOURS[index % len(COLOURS)],
                    linestyle=DASHES[index // len(COLOURS)],
                    label=label,
                )
            axis.set_title(f"{dataset}, {part}", fontsize=9)
            axis.grid(alpha=0.3)
            axis.set_ylim(bottom=0)
            axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("MB sent and received in all", fontsize=9)
    figure.supylabel("server_global", fontsize=9)
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=6
    )
    return figure
