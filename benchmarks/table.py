"""Print the comparison of finished runs as Markdown.

    .venv/bin/python benchmarks/table.py FOLDER/results

Mean over the seeds; in brackets the 95 % interval of the paired difference to PCA.
"""

import sys
from pathlib import Path

import pandas as pd

METRICS = ["knn_accuracy", "nmi", "ari", "clisi", "ilisi", "graph_connectivity", "preservation"]
COSTS = ["wall_seconds", "peak_memory_mb"]


def cell(row) -> str:
    """Return a score with its interval, the better ones in bold."""
    if pd.isna(row["mean"]):
        return "n/a"
    value = f"{row['mean']:.3f}"
    if row["latent"] == "pca":
        return value
    interval = f" [{row['lower']:+.3f}, {row['upper']:+.3f}]"
    return (f"**{value}**" if row["verdict"] == "better" else value) + interval


def table(summary: pd.DataFrame) -> list[str]:
    """Return the lines of one dataset's table: latents in rows, metrics and costs in columns."""
    lines = [f"| latent | {' | '.join(METRICS)} | {' | '.join(COSTS)} |", "|---" * 10 + "|"]
    for latent in dict.fromkeys(summary.loc[summary["kind"] == "latent", "latent"]):
        rows = summary[summary["latent"] == latent].set_index("metric", drop=False)
        scores = [cell(rows.loc[metric]) for metric in METRICS]
        costs = [f"{rows.loc[cost, 'mean']:.3g}" for cost in COSTS]
        lines.append(f"| {latent} | {' | '.join(scores + costs)} |")
    return lines


for path in sorted(Path(sys.argv[1]).glob("*/benchmark/summary.tsv")):
    print(f"\n### {path.parts[-3]}\n")
    print("\n".join(table(pd.read_csv(path, sep="\t"))))
