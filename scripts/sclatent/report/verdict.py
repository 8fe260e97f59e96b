"""The comparison in words: what did best at what, and whether a VAE is needed.

Rules
-----
Best: the highest mean over seeds. It is called best only when it is better than PCA by the verdict
of the summary (95 % interval of the paired difference over seeds, and Holm's p), and latents whose
difference from it is not clear are named beside it. When no latent is better than PCA, that is
what the sentence says.

Does the data need a VAE? A model is ahead on a metric when it is better than PCA and, where
Harmony ran, better than Harmony too. Then

- ahead nowhere, all metrics decided: no. Harmony is recommended when it beats PCA on some metric
  and loses to it on none of the others; otherwise both are named with what each is better at.
- ahead nowhere, some metrics unclear: not shown; the unclear metrics are named.
- ahead somewhere: for that, with what it is worse at; a gain of a model that learns from labels
  is said to be one.

DCA is a count autoencoder but no VAE: where it is ahead, a sentence of its own says so.
"""

import numpy as np
import pandas as pd

from sclatent.benchmark.statistics import compare_metric
from sclatent.figures import words

TASKS = {
    "ilisi": ("mixes batches best", "mixing batches"),
    "preservation": ("keeps neighbourhoods best", "keeping neighbourhoods"),
    "knn_accuracy": ("tells types apart best", "telling types apart"),
}


class Comparison:
    """The scores of one dataset, asked for means and verdicts.

    Parameters
    ----------
    summary, comparison
        The tables of these names of the benchmark.
    equivalence
        Differences whose interval lies within this are none.
    """

    def __init__(self, summary: pd.DataFrame, comparison: pd.DataFrame, equivalence: float):
        summary = summary[(summary["kind"] != "control") & ~summary["metric"].isin(words.COSTS)]
        self.rows = summary.set_index(["latent", "metric"]).sort_index()
        self.values = comparison
        self.equivalence = equivalence
        self.n_seeds = comparison["seed"].nunique()
        latents = summary["latent"]
        self.one_batch = "single batch" in str(self.rows["note"].get((words.BASELINE, "ilisi"), ""))
        if self.one_batch:  # then Harmony is PCA, and no competitor of it
            latents = latents[latents != "harmony"]
        self.latents = words.ordered(latents, words.NAMES)
        self.metrics = words.ordered(summary.loc[summary["mean"].notna(), "metric"], words.METRICS)

    def mean(self, latent: str, metric: str) -> float:
        """Return the mean over seeds, nan when it was not measured."""
        key = (latent, metric)
        return float(self.rows.loc[key, "mean"]) if key in self.rows.index else float("nan")

    def note(self, metric: str) -> str:
        """Return what limits a metric, as noted for the baseline."""
        note = self.rows["note"].get((words.BASELINE, metric), "")
        return note if isinstance(note, str) else ""

    def verdict(self, latent: str, other: str, metric: str) -> str:
        """Say whether a latent is better than another, by the rule of the summary."""
        if other == words.BASELINE:
            return str(self.rows["verdict"].get((latent, metric), "n/a"))
        rows = self.values[self.values["metric"] == metric]
        one, two = rows[rows["latent"] == latent], rows[rows["latent"] == other]
        if not len(one) or not len(two):
            return "n/a"
        return compare_metric(one, two, self.equivalence)["verdict"]


def best_sentence(dataset: str, scores: Comparison) -> str:
    """Return one sentence that says which latent did best at what."""
    parts = [best_at(task, scores) for task in TASKS if task in scores.metrics]
    if not parts:
        return f"{dataset}: nothing could be measured."
    missing = [words.metric(task).title for task in TASKS if task not in scores.metrics]
    if missing:
        why = "with one batch Harmony is PCA, and " if scores.one_batch else ""
        verb = "is" if len(missing) == 1 else "are"
        parts.append(f"{why}{words.listed(missing)} {verb} not defined")
    return f"{dataset}: {'; '.join(parts)}."


def best_at(metric: str, scores: Comparison) -> str:
    """Say which latent is best at one metric, or that none is better than PCA."""
    praise, task = TASKS[metric]
    note = scores.note(metric)
    title = words.metric(metric).title + (f" {note}" if note else "")
    ranked = sorted(
        (latent for latent in scores.latents if np.isfinite(scores.mean(latent, metric))),
        key=lambda latent: -scores.mean(latent, metric),
    )
    best = ranked[0]
    baseline = scores.mean(words.BASELINE, metric)
    others = [latent for latent in ranked if latent != words.BASELINE]
    if not others:
        return f"{task}: only PCA was measured ({title} {baseline:.3f})"
    if best == words.BASELINE or scores.verdict(best, words.BASELINE, metric) != "better":
        worse = [scores.verdict(latent, words.BASELINE, metric) == "worse" for latent in others]
        if all(worse):
            near = others[0]
            return (
                f"PCA {praise} ({title} {baseline:.3f}, "
                f"next {words.name(near)} {scores.mean(near, metric):.3f})"
            )
        return (
            f"{task}: no latent is shown to be better than PCA ({title}: PCA {baseline:.3f}, "
            f"highest other {words.name(others[0])} {scores.mean(others[0], metric):.3f})"
        )
    row = scores.rows.loc[(best, metric)]
    alike = [
        words.name(latent)
        for latent in ranked[1:]
        if scores.verdict(best, latent, metric) not in ("better", "n/a")
    ]
    shared = f", {words.listed(alike)} not clearly behind" if alike else ""
    return (
        f"{words.name(best)} {praise} ({title} {row['mean']:.3f}, PCA {baseline:.3f}, difference "
        f"{row['difference']:+.3f} [{row['lower']:.3f}, {row['upper']:.3f}]{shared})"
    )


def answer(scores: Comparison) -> str:
    """Answer whether the data need a VAE, by the rule of this module."""
    models = [latent for latent in scores.latents if words.kind(latent) in words.VAES]
    linear = [latent for latent in scores.latents if latent in words.LINEAR]
    if not models:
        return "Needs a VAE? This run cannot say: none was trained."
    if not scores.metrics or words.BASELINE not in linear:
        return "Needs a VAE? This run cannot say: nothing could be compared with PCA."
    if scores.n_seeds < 2:
        return "Needs a VAE? One seed cannot say: intervals need several, such as seeds: [0, 1, 2]."
    others = [latent for latent in scores.latents if words.kind(latent) == "dca"]
    outcome = {
        (model, metric): standing([scores.verdict(model, other, metric) for other in linear])
        for model in [*models, *others]
        for metric in scores.metrics
    }
    baselines = words.listed(map(words.name, linear))
    beside = "".join(
        f" Without being a VAE, {gain} (against {baselines})."
        for gain in gained(others, scores.metrics, outcome)
    )
    gains = gained(models, scores.metrics, outcome)
    if gains:
        return f"Needs a VAE? For some things: {'; '.join(gains)} (against {baselines}).{beside}"
    unclear = [
        words.metric(metric).title
        for metric in scores.metrics
        if any(outcome[model, metric] == "unclear" for model in models)
    ]
    if unclear:
        n_seeds = scores.n_seeds
        return (
            f"Needs a VAE? Not shown: no VAE is clearly better than {baselines} at "
            f"anything measured; {words.listed(unclear)} stay{'s' if len(unclear) == 1 else ''} "
            f"open with {n_seeds} seed{'s' if n_seeds > 1 else ''}. "
            f"{enough(scores, linear)}{beside}"
        )
    return (
        f"Needs a VAE? No: no VAE is better than {baselines} at anything measured. "
        f"{enough(scores, linear)}{beside}"
    )


def standing(verdicts: list[str]) -> str:
    """Return how a model stands against all linear baselines: ahead, behind, level or unclear."""
    if all(verdict == "better" for verdict in verdicts):
        return "ahead"
    if "worse" in verdicts:
        return "behind"
    return "level" if "no difference" in verdicts else "unclear"


def gained(models, metrics, outcome) -> list[str]:
    """Say for each model that is ahead anywhere where it is ahead and where behind."""
    sentences = []
    for model in models:
        ahead, behind = (
            [named(metric) for metric in metrics if outcome[model, metric] == state]
            for state in ("ahead", "behind")
        )
        if not ahead:
            continue
        taught = (
            ", which learns from the training labels,"
            if words.kind(model) in words.SUPERVISED
            else ""
        )
        text = f"{words.name(model)}{taught} is better at {words.listed(ahead)}"
        sentences.append(text + (f" but worse at {words.listed(behind)}" if behind else ""))
    return sentences


def named(metric: str) -> str:
    """Return a metric's name, with what to bear in mind."""
    title = words.metric(metric).title
    return f"{title} (which favours PCA by construction)" if metric == "preservation" else title


def enough(scores: Comparison, linear: list[str]) -> str:
    """Say which linear latent suffices, as far as the verdicts go."""
    if "harmony" not in linear:
        return "Until a gain is shown, PCA is the simpler choice."
    found = {metric: scores.verdict("harmony", words.BASELINE, metric) for metric in scores.metrics}
    better, worse, unclear = (
        [words.metric(metric).title for metric, verdict in found.items() if verdict == word]
        for word in ("better", "worse", "unclear")
    )
    if better and not worse:
        return f"Harmony is enough, and better than PCA at {words.listed(better)}."
    if better:
        return (
            f"Of the simple ones, Harmony is better than PCA at {words.listed(better)}, "
            f"and worse at {words.listed(worse)}."
        )
    if unclear:
        return f"Whether Harmony is better than PCA stays open at {words.listed(unclear)}."
    return "PCA alone is enough: Harmony is no better."


def sentences(dataset: str, scores: Comparison, imported=()) -> tuple[str, str]:
    """Return what did best at what, and whether the dataset needs a VAE.

    Of latents that are `imported` it says that their scores may be too good.
    """
    return best_sentence(dataset, scores), answer(scores) + caution(imported)


def caution(imported) -> str:
    """Say what imported models may have seen; nothing where there are none."""
    if not imported:
        return ""
    one = len(imported) == 1
    return (
        f" {words.listed(map(words.name, imported))} {'was' if one else 'were'} trained elsewhere: "
        f"{'it' if one else 'they'} may have seen held-out cells and test labels, "
        "and score better for it."
    )


def verdict_text(verdicts, report) -> str:
    """Return the text that ends a run: both sentences of each dataset, and where the report is."""
    lines = [line for best, needed in verdicts for line in (best, f"  {needed}")]
    return "\n".join([*lines, f"Report: {report}", ""])
