"""Write how a linear decoder moves the log expression of each gene along each dimension."""

from sclatent import job

job.start(snakemake)

import pandas as pd

from sclatent import files
from sclatent.models import saved
from sclatent.models.scvi import loadings

model, description = saved.restore(snakemake.input.model)
values = loadings(model)
table = pd.DataFrame(values, columns=[str(1 + dimension) for dimension in range(values.shape[1])])
table.insert(0, "gene", description["genes"])
files.write_table(snakemake.output.loadings, table)
