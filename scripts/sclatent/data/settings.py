"""The config sections that describe a dataset and what is asked of it."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """One dataset of the config; the schema describes every key.

    Attributes
    ----------
    source, samples, sha256, mirrors
        Where the files come from. The rules turn them into local paths.
    annotations : str or None
        Table whose first column is the cell.
    batch, cell_type, unknown : str or None
        Columns of obs, and the label that means not labelled.
    layer : str or None
        Where the counts are: ``X``, ``raw`` or a layer.
    genome : str or None
        The genome to keep in a 10x HDF5 file with several.
    genes_in_rows : bool
        A csv or tsv table with genes in rows.
    keep : dict
        Columns of obs and the values to keep.
    hidden_batches : list of str
        Batches whose labels are hidden.
    categorical_covariates, continuous_covariates : list of str
        Columns of obs that a model may know beside the batch.
    simulate : dict
        Settings of the simulator.
    """

    source: str | None = None
    samples: dict = field(default_factory=dict)
    sha256: str | None = None
    mirrors: tuple = ()
    annotations: str | None = None
    batch: str | None = None
    cell_type: str | None = None
    unknown: str | None = None
    layer: str | None = None
    genome: str | None = None
    genes_in_rows: bool = False
    keep: dict = field(default_factory=dict)
    hidden_batches: tuple = ()
    categorical_covariates: tuple = ()
    continuous_covariates: tuple = ()
    simulate: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """The section `input` of the config.

    Attributes
    ----------
    min_cells_per_batch : int
        The fewest cells that a batch may have.
    small_batches : str
        What happens to a smaller batch: ``error``, ``drop`` or ``merge``.
    """

    min_cells_per_batch: int = 20
    small_batches: str = "error"
