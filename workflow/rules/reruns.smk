"""What makes rules run again, beside their settings: code, packages, the bytes of your files.

Snakemake sees no imports, knows no packages outside conda and compares large files by their times.
As parameters, the hashes below rerun a rule when one of them changes, and only then.
"""

import collections
import functools

# how conda-forge calls what has another name on PyPI
PYPI = {"matplotlib-base": "matplotlib", "python-igraph": "igraph", "pytorch": "torch"}
HASHES = Path(".snakemake/sclatent-hashes.json")
NO_CONTENT = (".DS_Store", ".snakemake_timestamp")
IMPORT = re.compile(
    r"^ *(?:from (sclatent[\w.]*) import (\([^)]*\)|.*)|import (sclatent\.[\w.]+))", re.M
)


def digest(text):
    """Return a short hash of text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def hash_together(paths):
    """Return a hash of the texts of some files."""
    return digest("".join(path.read_text() for path in sorted(paths)))


@functools.cache
def imported_modules(path):
    """Return the files of the library that a file imports, at its top or in a function."""
    names = set()
    for module, what, alone in IMPORT.findall(path.read_text()):
        names.add(module or alone)
        names.update(f"{module}.{name}" for name in re.findall(r"\w+", what))
    root = HERE / "scripts"
    files = (root.joinpath(*name.split(".")).with_suffix(".py") for name in names)
    return {file for file in files if file.is_file()}


def library(script):
    """Return a hash of a script and of the library modules it imports, directly or through others."""
    found, todo = set(), {HERE / f"scripts/{script}.py"}
    while todo:
        path = todo.pop()
        found.add(path)
        todo |= imported_modules(path) - found
    return hash_together(found)


@functools.cache
def locked():
    """Return {package: version} of requirements.lock, and {package: the packages that it needs}."""
    versions, needs = {}, collections.defaultdict(set)
    for line in (HERE / "requirements.lock").read_text().splitlines():
        if line[:1].isalnum():
            package, versions[package] = line.split("==")
        for parent in re.findall(r"^ +# +(?:via )?([\w.-]+)$", line):
            needs[parent].add(package)
    return versions, needs


@functools.cache
def pinned(environment):
    """Return a hash of the pins of an environment in envs/, with all that its packages need."""
    versions, needs = locked()
    listed = yaml.safe_load((HERE / f"envs/{environment}.yaml").read_text())["dependencies"]
    names = [line.split()[0] for line in listed]
    found, todo = set(), [PYPI.get(name, name) for name in names]
    while todo:
        package = todo.pop()
        if package not in found:
            found.add(package)
            todo += needs[package]
    pins = [f"{package}=={versions[package]}" for package in sorted(found & versions.keys())]
    return digest("\n".join([*pins, *(line for line in listed if line.startswith("python "))]))


def user_files(dataset):
    """Return the files that a dataset is read from and that the workflow does not make itself."""
    return [path for path in dataset_files(dataset) if not is_made(dataset, path)]


def contents(paths):
    """Return {path: SHA-256} of the user's files; that of a folder is one of all its files.

    What was hashed is remembered in the folder of the run, so that a large file is read once.
    """
    known = json.loads(HASHES.read_text()) if HASHES.is_file() else {}
    remembered = len(known), str(known)
    hashes = {str(path): content(Path(path), known) for path in paths}
    if remembered != (len(known), str(known)):
        HASHES.parent.mkdir(exist_ok=True)
        partial = HASHES.with_name(f"{HASHES.name}.{os.getpid()}")
        partial.write_text(json.dumps(known, indent=1, sort_keys=True))
        partial.replace(HASHES)
    return hashes


def content(path, known):
    """Return the SHA-256 of a file or folder, from `known` where nothing about it has changed."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        files = [file for file in files if file.name not in NO_CONTENT]
        lines = [f"{content(file, known)}  {file.relative_to(path)}\n" for file in files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    if not path.exists():
        return None
    stat, place = path.stat(), str(path.resolve())
    state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    *before, found = known.get(place, [None])
    if before == state:
        return found
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    # A file that is still written to can change within one tick of its clock.
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > 2e9:
        known[place] = [*state, found]
    return found
