"""
The ratio to the best peer of each row, as bars: right of the line Rowex is ahead, left of it behind.
"""

from __future__ import annotations

from pathlib import Path

from .report import best_peer
from .rounds import Times
from .rows import ROWS


def draw(tables: dict[str, Times], path: Path) -> None:
    """
    One panel a table, into a file.

    Args:
        tables: Of rounds.measure().
        path: Its ending says the kind: .svg, .png, .pdf.

    Raises:
        ImportError: matplotlib is not there (it is in the `bench` extra).
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(len(tables), 1, figsize=(9, 6.5 * len(tables)), squeeze=False)
    for axes, (title, times) in zip(panels[:, 0], tables.items(), strict=True):
        rows = [(label, best) for row, label in ROWS.items() if (best := best_peer(times, row))]
        rows.reverse()
        values = [ratio for _, (_, ratio) in rows]
        axes.barh([label for label, _ in rows], values, color=["#2a7" if value >= 1 else "#c44" for value in values])
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("the best peer's figure, in Rowex's")
        for at, (_, (name, ratio)) in enumerate(rows):
            axes.text(ratio, at, f" {ratio:.1f}x {name}", va="center", fontsize=7)
        axes.tick_params(labelsize=7)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
