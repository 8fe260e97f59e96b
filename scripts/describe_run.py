"""Describe a finished run as an RO-Crate, and write the config that it ran with."""

from sclatent import job

job.start(snakemake)

from pathlib import Path

import yaml

from sclatent import files, provenance
from sclatent.report.crate import describe

folder = Path(snakemake.output.crate).parent
records = provenance.trace(snakemake.input, folder)
config = yaml.safe_dump(snakemake.params.config, sort_keys=False, allow_unicode=True)
files.write_text(snakemake.output.config, config)
crate = describe(records, folder, snakemake.output.config)
files.write_json(snakemake.output.crate, crate.metadata.generate())
print(f"described {len(records)} jobs in {snakemake.output.crate}")
