"""Choose highly variable genes on the training cells, batch by batch."""

from sclatent import job

job.start(snakemake)

from sclatent import files
from sclatent.data.blocks import open_dataset
from sclatent.data.genes import Selection, select_genes

cells = open_dataset(snakemake.input.cells, splits=snakemake.input.splits)
train = (cells.obs["cells_split"] == "train").to_numpy()
genes = select_genes(
    cells.counts.keep(train),
    cells.table.var_names,
    cells.obs["batch"][train],
    Selection(**snakemake.params.selection),
)
files.write_table(snakemake.output.genes, genes)
