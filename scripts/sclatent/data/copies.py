"""Find cells that are there twice under two names, by what they count."""

import numpy as np
from scipy.sparse import csr_matrix

FEWEST = 50  # counts from which two cells are not equal by chance
CELLS = 1024  # that are looked at together, so that the larger numbers take little memory


class Copies:
    """Remembers the counts of each cell that passes by as a number of 64 bits.

    The number is a sum of the counts with random weights: equal counts give equal numbers, and two
    different cells one number once in 10^18 times or so.

    Parameters
    ----------
    n_genes
        Of every block.
    """

    def __init__(self, n_genes: int):
        self.weights = np.random.default_rng(0).integers(0, 2**64, n_genes, dtype=np.uint64)
        self.sums, self.totals = [], []

    def look(self, block: csr_matrix) -> csr_matrix:
        """Remember the cells of a block of counts, and return it."""
        for start in range(0, block.shape[0], CELLS):
            ends = block.indptr[start : start + CELLS + 1]
            part = slice(ends[0], ends[-1])
            values = block.data[part].astype(np.uint64)
            for numbers, kept in (
                (values * self.weights[block.indices[part]], self.sums),
                (values, self.totals),
            ):
                sums = np.concatenate([[np.uint64(0)], np.cumsum(numbers, dtype=np.uint64)])
                kept.append(np.diff(sums[ends - ends[0]]))  # modulo 2^64
        return block

    def report(self, names) -> None:
        """Warn of cells whose counts are those of another; `names` are those of all that passed."""
        rows = np.flatnonzero(np.concatenate([[], *self.totals]) >= FEWEST)
        sums = np.concatenate([np.empty(0, np.uint64), *self.sums])[rows]
        order = np.argsort(sums, kind="stable")
        again = np.flatnonzero(np.diff(sums[order]) == 0)
        if not len(again):
            return
        first, second = (names[rows[order[again[0] + step]]] for step in (0, 1))
        print(
            f"WARNING {len(again):,} cells have exactly the counts of another, such as {second} "
            f"those of {first}: the same cells under two names would be learnt from and judged by"
        )
