"""The study's figures: what the tables say, to look at."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import matplotlib

from benchmarks.study.cells import ACCURACIES, Cell
from benchmarks.study.tables import Lines, interval

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

COLOURS = ("#4d4d4d", "#d55e00", "#0072b2", "#009e73", "#b0568f", "#b8860b")
DASHES = ("solid", "dashed", "dotted")
HATCHES = ("", "///", "...")
DPI = 110


def draw(cells: Sequence[Cell], lines: Lines, folder: Path) -> list[Path]:
    """Draw what the runs allow; return the files written."""
    main = [c for c in cells if c.table == "main" and c.key in lines]
    if not main:
        return []
    figures = (
        ("accuracy.png", _bars(main, lines)),
        ("curves.png", _curves(main, lines)),
    )
    for name, figure in figures:
        figure.savefig(folder / name, dpi=DPI)
        plt.close(figure)
    return [folder / name for name, _ in figures]


def _bars(cells: Sequence[Cell], lines: Lines) -> Figure:
    """Return accuracies by cell and strategy, with their intervals."""
    places = list(dict.fromkeys((c.dataset, c.partition) for c in cells))
    labels = list(dict.fromkeys(c.label for c in cells))
    figure, axes = plt.subplots(
        len(ACCURACIES), 1, figsize=(9.5, 7.5), sharex=True, layout="constrained"
    )
    width = 0.8 / len(labels)
    for axis, measure in zip(axes, ACCURACIES, strict=True):
        for index, label in enumerate(labels):
            heights, errors = [], []
            for place in places:
                found = [
                    lines[c.key][measure]
                    for c in cells
                    if (c.dataset, c.partition) == place
                    and c.label == label
                    and lines[c.key][measure] is not None
                ]
                middle, half = interval(found) if found else (0.0, None)
                heights.append(middle)
                errors.append(half or 0.0)
            left = [
                i + (index - len(labels) / 2 + 0.5) * width for i in range(len(places))
            ]
            axis.bar(
                left,
                heights,
                width,
                yerr=errors,
                label=label,
                color=COLOURS[index % len(COLOURS)],
                hatch=HATCHES[index // len(COLOURS)],
                edgecolor="white",
                error_kw={"elinewidth": 0.8},
            )
        axis.set_ylabel(measure)
        axis.set_ylim(0, 1)
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xticks(range(len(places)), [f"{d}\n{p}" for d, p in places])
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=6
    )
    return figure


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
