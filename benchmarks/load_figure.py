"""Draw who was loaded when: expert load per round, one panel per run.

``python -m benchmarks.load_figure RUN [RUN ...] --out docs/load.png`` reads what each
run left in its directory.
"""

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def main() -> None:
    """Draw the panels side by side on one colour scale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    loads, titles = [], []
    for run in args.runs:
        lines = (run / "metrics.jsonl").read_text().splitlines()
        rounds = [json.loads(line) for line in lines]
        settings = json.loads((run / "run.json").read_text())["settings"]
        loads.append(np.array([record["load"] for record in rounds]).T)
        cv = rounds[-1]["cv_cumulative"]
        titles.append(
            f"{settings['strategy']}, {settings['dataset']} {settings['partition']}\n"
            f"cumulated CV {'-' if cv is None else format(cv, '.3f')}"
        )
    figure, axes = plt.subplots(
        1, len(loads), figsize=(4.2 * len(loads), 3.2), sharey=True, squeeze=False
    )
    highest = max(load.max() for load in loads)
    for axis, load, title in zip(axes[0], loads, titles, strict=True):
        image = axis.imshow(
            load,
            aspect="auto",
            cmap="viridis",
            vmin=0,
            vmax=highest,
            origin="lower",
            extent=(0.5, load.shape[1] + 0.5, -0.5, load.shape[0] - 0.5),
        )
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("round")
    axes[0][0].set_ylabel("expert")
    figure.colorbar(image, ax=axes[0].tolist(), label="clients that held it")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
