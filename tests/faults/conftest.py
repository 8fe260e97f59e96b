"""What the fault cases share: bad files in the making, and the table of cases at the end."""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

N_CASES = 64
QUERY = "a query's part waits for query mapping"
WAITS = {
    27: f"Ensembl ids against symbols: {QUERY}",
    28: f"Ensembl ids with versions: {QUERY}",
    29: f"a mouse against a human: {QUERY}",
    30: f"genes in another order: {QUERY}",
    44: f"a batch that the reference does not know: {QUERY}",
    45: f"a cell type that the reference does not know: {QUERY}",
}
NAME = re.compile(r"test_case_(\d+)_(\w+)")


@pytest.fixture(scope="session")
def waits() -> dict[int, str]:
    """The cases of which at least a part waits, and for what."""
    return WAITS


@dataclass
class Bench:
    """A folder with small bad files, and the reader that the rule validate_counts calls."""

    folder: Path

    def adata(self, matrix=None, n_cells=6, n_genes=10, **parts):
        """Return counts as an AnnData; keywords that it does not know are columns of obs."""
        import anndata
        import numpy as np
        import pandas as pd
        from scipy import sparse

        if matrix is None:
            counts = np.random.default_rng(0).poisson(2, (n_cells, n_genes))
            matrix = sparse.csr_matrix(counts.astype(np.float32))
        slots = {key: parts.pop(key) for key in ("layers", "obsm") if key in parts}
        obs = pd.DataFrame(parts, index=[f"cell{i}" for i in range(matrix.shape[0])])
        var = pd.DataFrame(index=[f"G{i}" for i in range(matrix.shape[1])])
        return anndata.AnnData(matrix, obs=obs, var=var, **slots)

    def save(self, adata, name="mine.h5ad") -> str:
        """Write an h5ad and return its path."""
        path = self.folder / name
        adata.write_h5ad(path)
        return str(path)

    def write(self, samples, min_cells=2, small="error", **entry) -> Path:
        """Read files of counts as the config entry says, and return the path of what comes out."""
        from sclatent.data.settings import Entry, Limits
        from sclatent.data.sources import read_dataset, write_counts

        samples = {"mine": samples} if isinstance(samples, str) else samples
        dataset = read_dataset("mine", Entry(**entry), samples, Limits(min_cells, small))
        path = self.folder / "out" / f"counts{len(list(self.folder.glob('out/*')))}.h5ad"
        path.parent.mkdir(exist_ok=True)
        write_counts(path, dataset)
        return path

    def read(self, samples, **options):
        """Return what `write` writes."""
        import anndata

        return anndata.read_h5ad(self.write(samples, **options))

    def refuse(self, samples, pattern: str, **options) -> list[str]:
        """Check that the reader refuses files with a line of this pattern; return all lines."""
        from sclatent.errors import InputError

        with pytest.raises(InputError) as caught:
            self.write(samples, **options)
        lines = caught.value.problems
        assert any(re.search(pattern, line) for line in lines), lines
        assert all(line.count("\n") == 0 and "Fix: " in line for line in lines), lines
        return lines


@pytest.fixture
def bench(tmp_path) -> Bench:
    """An empty folder to make bad files in."""
    return Bench(tmp_path)


def outcomes(reporter) -> dict:
    """Return {(case, what happens): set of outcomes} of the tests that ran."""
    found = defaultdict(set)
    for outcome in ("passed", "failed", "error", "skipped", "xfailed"):
        for report in reporter.stats.get(outcome, []):
            match = NAME.search(report.nodeid)
            if match and (report.when == "call" or outcome != "passed"):
                found[int(match[1]), match[2].replace("_", " ")].add(outcome)
    return found


def pytest_terminal_summary(terminalreporter):
    """Print the table of cases where nothing but fault cases ran."""
    reports = [item for items in terminalreporter.stats.values() for item in items]
    found = outcomes(terminalreporter)
    if not found or any("tests/faults/" not in getattr(item, "nodeid", "") for item in reports):
        return
    lines = [(case, worst(results), what) for (case, what), results in found.items()]
    lines += [(case, "waits", what) for case, what in WAITS.items()]
    terminalreporter.section("fault cases")
    for case, outcome, what in sorted(lines):
        terminalreporter.write_line(f"{case:3}  {outcome:8} {what}")
    by_case = defaultdict(set)
    for (case, _), results in found.items():
        by_case[case] |= results
    n_passed = sum(results == {"passed"} for results in by_case.values())
    terminalreporter.write_line(
        f"{n_passed} of {N_CASES} cases passed, {len(by_case) - n_passed} did not; "
        f"of {len(WAITS)} all or a part waits"
    )


def worst(results: set[str]) -> str:
    """Return the outcome of a test of several parameters."""
    order = ("failed", "error", "skipped", "xfailed", "passed")
    return next(outcome for outcome in order if outcome in results)
