"""The names that people read: of latents, metrics and classifiers."""

from dataclasses import dataclass

BASELINE = "pca"
LINEAR = ("pca", "harmony")
VAES = ("scvi", "scanvi")
SUPERVISED = ("scanvi",)
MODELS = ("dca", *VAES)
COSTS = ("wall_seconds", "cpu_seconds", "peak_memory_mb")

NAMES = {
    "pca": "PCA",
    "harmony": "Harmony",
    "dca": "DCA",
    "scvi": "scVI",
    "scanvi": "scANVI",
    "null": "null model",
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


def kind(latent: str) -> str:
    """Return the model of a latent: ``scvi`` for scvi and its variants such as scvi_linear."""
    return latent.split("_")[0]


def name(key: str) -> str:
    """Return what a latent, classifier or method is called; an unknown one keeps its key."""
    if key not in NAMES and kind(key) in MODELS:
        return f"{NAMES[kind(key)]} {key.partition('_')[2].replace('_', ' ')}"
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
    """Return the distinct keys in the order of `first`, variants after their model, others last."""
    first = list(first)

    def place(key: str) -> tuple:
        known = key if key in first else kind(key)
        return (first.index(known) if known in first else len(first), key != known, key)

    return sorted(set(keys), key=place)
