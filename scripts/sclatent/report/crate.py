"""A finished run as an RO-Crate: inputs, jobs and outputs, with hashes, in JSON-LD.

Follows RO-Crate (https://www.researchobject.org/ro-crate/) and, for the jobs, its profile
Process Run Crate: each job is a CreateAction with its rule as instrument. Files outside the folder
of the results have no path in the crate and stand in it as documents with name and hash.
"""

from pathlib import Path

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from sclatent import files, provenance

LICENCE = "https://spdx.org/licenses/BSD-3-Clause"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
LANGUAGE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"


def describe(records: list[dict], folder, config) -> ROCrate:
    """Return the crate of a run.

    Parameters
    ----------
    records
        Of all its jobs, as `provenance.trace` returns them.
    folder
        The folder of the results, the root of the crate.
    config
        The file with the config that ran.
    """
    crate, folder = ROCrate(), Path(folder)
    crate.name = "A run of sclatent"
    crate.description = "Single-cell counts, integrated, labelled and compared by sclatent."
    crate.license = LICENCE
    if records:
        crate.datePublished = max(record["ended"] for record in records)
    crate.root_dataset["conformsTo"] = {"@id": PROFILE}
    hashes = {str(config): files.sha256(config)}
    for record in records:
        hashes |= record["inputs"] | record["outputs"]
    entities = {path: file(crate, path, said, folder) for path, said in hashes.items()}
    crate.root_dataset["mentions"] = [job(crate, record, entities, folder) for record in records]
    workflow = add_workflow(crate, records, entities)
    crate.root_dataset["mainEntity"] = workflow
    return crate


def add(crate: ROCrate, identifier: str, kind, **properties) -> ContextEntity:
    """Add an entity that is no file of the crate."""
    return crate.add(ContextEntity(crate, identifier, properties={"@type": kind, **properties}))


def file(crate: ROCrate, path: str, digest: str, folder: Path):
    """Add a file or folder with its hash."""
    said = {"name": Path(path).name, "sha256": digest}
    if not Path(path).is_relative_to(folder):
        return add(crate, f"#{path}", "DigitalDocument", **said)
    place = Path(path).relative_to(folder).as_posix()
    if Path(path).is_dir():
        return crate.add_dataset(dest_path=place, properties=said)
    size = str(Path(path).stat().st_size)
    return crate.add_file(dest_path=place, properties={**said, "contentSize": size})


def job(crate: ROCrate, record: dict, entities: dict, folder: Path) -> ContextEntity:
    """Add a job: an action with its rule as instrument, its inputs and its outputs."""
    cost, machine = record["cost"], record["machine"]
    instrument = crate.get(f"#{record['rule']}") or add(
        crate, f"#{record['rule']}", "SoftwareApplication", name=record["rule"]
    )
    name = " ".join([record["rule"], *record["wildcards"].values()])
    return add(
        crate,
        f"#job {name}",
        "CreateAction",
        name=name,
        instrument=instrument,
        object=[entities[path] for path in record["inputs"]],
        result=[entities[path] for path in record["outputs"]],
        startTime=record["started"],
        endTime=record["ended"],
        actionStatus="http://schema.org/CompletedActionStatus",
        description=(
            f"{record['threads']} thread(s) of {machine['cpu']}, {cost['wall_seconds']} s, "
            f"at most {cost['peak_memory_mb']} MB"
        ),
    )


def add_workflow(crate: ROCrate, records: list[dict], entities: dict) -> ContextEntity:
    """Add the workflow, its commit, its packages and the files that it was given."""
    packages = sorted({pair for record in records for pair in record["versions"].items()})
    software = [
        add(crate, f"#{name} {version}", "SoftwareApplication", name=name, softwareVersion=version)
        for name, version in packages
    ]
    language = add(crate, LANGUAGE, "ComputerLanguage", name="Snakemake")
    return add(
        crate,
        "#sclatent",
        ["SoftwareSourceCode", "ComputationalWorkflow"],
        name="sclatent",
        version=sorted({record["commit"] or "unknown" for record in records}),
        license=LICENCE,
        programmingLanguage=language,
        softwareRequirements=software,
        input=[entities[path] for path in provenance.sources(records)],
    )
