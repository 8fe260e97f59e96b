"""Write a trained model as scvi-tools loads it."""

from sclatent import job

job.start(snakemake)

from sclatent.models import saved
from sclatent.models.exports import write_export

model, description = saved.restore(snakemake.input.model)
write_export(snakemake.output.model, model, description)
print(f"wrote {snakemake.output.model}: {len(description['genes']):,} genes")
