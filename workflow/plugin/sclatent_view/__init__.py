"""One view of a run: bars on a terminal, a line per job elsewhere; not Snakemake's lines."""
