"""Choose highly variable genes on the training cells, batch by batch."""

from sclatent import files, job
from sclatent.data.genes import Selection, select_genes
from sclatent.data.store import read_cells

job.start(snakemake)
cells = read_cells(snakemake.input.cells, splits=snakemake.input.splits)
train = cells[cells.obs["cells_split"] == "train"]
selection = Selection(**snakemake.params.selection)
files.write_table(
    snakemake.output.genes, select_genes(train.X, train.var_names, train.obs["batch"], selection)
)
