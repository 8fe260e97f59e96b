"""The tables of the report that say where its numbers come from."""

from collections import defaultdict

from sclatent import provenance
from sclatent.report.tables import Table, number


def origins(records: list[dict]) -> dict[str, Table]:
    """Return the tables `inputs`, `jobs` and `software` of the jobs behind the report.

    Parameters
    ----------
    records
        As `provenance.trace` returns them.
    """
    return {
        "inputs": inputs_table(records),
        "jobs": jobs_table(records),
        "software": software_table(records),
    }


def inputs_table(records: list[dict]) -> Table:
    """Return the user's files and what was downloaded, with their hashes."""
    rows = [[path, digest] for path, digest in provenance.sources(records).items()]
    for record in records:
        if record["rule"].endswith("download_counts"):
            source = record["params"]["sample"]["source"]
            rows += [[f"{source} as {path}", said] for path, said in record["outputs"].items()]
    return Table(["file", "SHA-256"], rows)


def jobs_table(records: list[dict]) -> Table:
    """Return what the jobs of each rule cost, their threads and the CPUs that they ran on."""
    rules = defaultdict(list)
    for record in records:
        rules[record["rule"]].append(record)
    rows = []
    for rule, jobs in rules.items():
        costs = [job["cost"] for job in jobs]
        rows.append(
            [
                rule,
                str(len(jobs)),
                said(job["threads"] for job in jobs),
                number(sum(cost["wall_seconds"] for cost in costs)),
                number(max(cost["peak_memory_mb"] for cost in costs)),
                said(job["machine"]["cpu"] for job in jobs),
            ]
        )
    head = ["rule", "jobs", "threads", "wall time of all (s)", "largest peak memory (MB)", "CPU"]
    return Table(head, rows)


def software_table(records: list[dict]) -> Table:
    """Return the versions that the jobs had loaded, the commit and the hash of the lock."""
    found = defaultdict(list)
    for record in records:
        for package, version in record["versions"].items():
            found[package].append(version)
    rows = [[package, said(found[package])] for package in sorted(found)]
    rows.append(["sclatent, git commit", said(record["commit"] or "none" for record in records)])
    rows.append(["requirements.lock, SHA-256", said(record["lock"] for record in records)])
    return Table(["package", "version"], rows)


def said(values) -> str:
    """Return what several jobs say, each once."""
    return ", ".join(sorted({str(value) for value in values}))
