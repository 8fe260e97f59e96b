"""The names that people read: of latents, metrics and classifiers."""

from dataclasses import dataclass

BASELINE = "pca"
LINEAR = ("pca", "harmony")
COUNT_MODELS = ("scvi", "scanvi", "dca")
SUPERVISED = ("scanvi",)
COSTS = ("wall_seconds", "cpu_seconds", "peak_memory_mb")

NAMES = {
    "pca": "PCA",
    "harmony": "Harmony",
    "scvi": "scVI",
    "scanvi": "scANVI",
    "dca": "DCA",
    "shuffled": "shuffled cells",
    "labels": "true labels",
    "logistic": "logistic regression",
    "knn": "nearest neighbours",
    "majority": "majority vote",
    "umap": "UMAP",
    "tsne": "t-SNE",
}


@dataclass(frozen=True)
class Metric:
    """How a metric is called, what it asks, and how it is measured."""

    title: str
    task: str
    meaning: str


METRICS = {
    "knn_accuracy": Metric(
        "kNN label accuracy",
        "neighbours of the same type",
        "Share of cells whose label is the majority label of their nearest neighbours in other "
        "batches; within the batch, and noted so, when there is only one.",
    ),
    "nmi": Metric(
        "k-means NMI",
        "clusters like types",
        "Normalised mutual information of labels and k-means clusters, as many clusters as "
        "labels, the mean over many starts.",
    ),
    "ari": Metric(
        "k-means ARI",
        "clusters like types",
        "Adjusted Rand index of the same clusters; 0 is chance.",
    ),
    "clisi": Metric(
        "cLISI",
        "types kept apart",
        "One minus the effective number of other types in a cell's neighbourhood, scaled to 0-1.",
    ),
    "ilisi": Metric(
        "iLISI",
        "batches mixed",
        "Effective number of batches in a cell's neighbourhood, scaled to 0-1. Mixing alone is no "
        "merit: shuffled cells mix best.",
    ),
    "graph_connectivity": Metric(
        "graph connectivity",
        "types in one piece",
        "Mean over types of the share of cells in the largest connected piece of the "
        "neighbour graph.",
    ),
    "preservation": Metric(
        "neighbourhood preservation",
        "neighbours kept within batch",
        "Share of a cell's nearest neighbours in a PCA of its own batch that are also its "
        "neighbours in the latent. PCA is favoured by construction.",
    ),
}


def name(key: str) -> str:
    """Return what a latent, classifier or method is called; an unknown one keeps its key."""
    return NAMES.get(key, key)


def metric(key: str) -> Metric:
    """Return the words of a metric; an unknown one keeps its key."""
    return METRICS.get(key, Metric(key.replace("_", " "), key.replace("_", " "), ""))


def listed(items, last: str = "and") -> str:
    """Return items as in a sentence: ``a``, ``a and b``, ``a, b and c``."""
    items = list(items)
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def ordered(keys, first) -> list[str]:
    """Return the distinct keys, those in `first` in its order, the others after them sorted."""
    keys = set(keys)
    return [key for key in first if key in keys] + sorted(keys - set(first))
