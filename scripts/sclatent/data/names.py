"""Names of genes: of which kind they are, and Ensembl ids without their version."""

import re

import pandas as pd

ENSEMBL = re.compile(r"^(ENS[A-Z]*G\d{6,})(\.\d+)?$")


def strip_versions(ids: pd.Series, where: str) -> pd.Series:
    """Return Ensembl ids without their version: files of two releases then name genes alike.

    They stay as they are where two would become one.
    """
    bare = ids.str.replace(ENSEMBL, r"\1", regex=True)
    versioned = ids[bare != ids]
    if not len(versioned) or bare.nunique() < ids.nunique():
        return ids
    example = versioned.iloc[0]
    print(
        f"WARNING {where}: {len(versioned):,} Ensembl ids lose their version, such as {example}, "
        f"which is read as {bare[versioned.index[0]]}"
    )
    return bare


def kind(names: pd.Index) -> str:
    """Say what genes are called by: Ensembl ids of a species, or symbols in some case."""
    names = pd.Index(names).astype(str)
    ids = names[names.str.match(ENSEMBL)]
    if len(ids) > len(names) / 2:
        prefix = re.match(r"[A-Z]+", ids[0])[0]
        return f"Ensembl ids ({prefix})"
    words = names[names.str.contains("[A-Za-z]", regex=True)]
    capitals = (words.str.upper() == words).mean() if len(words) else 1
    return "symbols in capitals" if capitals > 0.5 else "symbols in small letters"


def unlike(genes: dict[str, pd.Index]) -> str:
    """Return how to mend samples whose genes do not match, from how these are called."""
    folded = [set(index.astype(str).str.upper()) for index in genes.values()]
    alike = set.intersection(*folded)
    if len({kind(index) for index in genes.values()}) == 1:
        return "count all samples against one reference"
    if 2 * len(alike) > min(map(len, folded)):
        return (
            "the names differ in case only, as of human and mouse: name genes by their orthologues "
            "in one species, or make two datasets"
        )
    return "name the genes of all samples alike, by symbols or by Ensembl ids of one species"
