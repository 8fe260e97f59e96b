"""What a run that cannot go on says at its end: what failed, who holds the lock, what is read-only."""

import atexit
import contextlib
import shlex
import shutil
import socket
import tempfile

import psutil
from snakemake.exceptions import WorkflowError

FOLDER = Path.cwd()  # Snakemake leaves it before it ends
HOLDER = FOLDER / ".snakemake/sclatent-run.json"
ERRORS = FOLDER / "results/errors.json"


def command(*flags):
    """Return the command that was given, with flags before its arguments, for a shell."""
    program = [sys.argv[0]]
    if Path(program[0]).name != "snakemake":
        program = [sys.executable, "-m", "snakemake"]
    elif shutil.which("snakemake") == program[0]:
        program = ["snakemake"]
    return shlex.join([*program, *flags, *sys.argv[1:]])


def note_holder():
    """Write which process works in this folder, for one that comes later."""
    me = {"host": socket.gethostname(), "pid": os.getpid()}
    HOLDER.parent.mkdir(exist_ok=True)
    HOLDER.write_text(json.dumps({**me, "since": psutil.Process().create_time()}))


def is_alive(pid, since):
    """Say whether the process of this number is the one that began then."""
    try:
        return abs(psutil.Process(pid).create_time() - since) < 1
    except psutil.NoSuchProcess:
        return False


def lock_problem():
    """Return one line that says who holds the lock, and what goes on."""
    place = f"{FOLDER}: another run"
    go_on = f"{command('--unlock')} && {command()}"
    holder = json.loads(HOLDER.read_text()) if HOLDER.is_file() else {}
    if holder.get("host") != socket.gethostname():
        there = f" on {holder['host']}" if holder else ""
        return f"E442 {place}{there} has locked this folder. Fix: if it has ended, {go_on}"
    if is_alive(holder["pid"], holder["since"]):
        when = time.strftime("%H:%M", time.localtime(holder["since"]))
        who = f"(process {holder['pid']}, since {when})"
        return f"E441 {place} {who} works in this folder. Fix: wait until it ends, then {command()}"
    return f"E440 {place} was killed and left its lock. Fix: {go_on}"


def read_only(folder):
    """Return one line where nothing can be written in a folder; None where it can."""
    try:
        folder.mkdir(exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        fix = "make the folder writable, or run with --directory elsewhere"
        return f"E412 {folder}: nothing can be written there ({error.strerror}). Fix: {fix}"


def say_why():
    """Say after Snakemake's own message why nothing ran: a lock, or a folder for locks that is read-only."""
    settings, persistence = workflow.execution_settings, workflow.persistence
    if not settings or not settings.lock or workflow.dryrun:
        return
    locked = persistence and persistence.locked
    problem = lock_problem() if locked else read_only(FOLDER / ".snakemake")
    if problem:
        print(f"ERROR {problem}", file=sys.stderr)


if workflow.is_main_process and not IS_MODULE:
    atexit.register(say_why)
    if not any((FOLDER / ".snakemake/locks").glob("*.lock")):
        with contextlib.suppress(OSError):  # a run where nothing can be written says so itself
            note_holder()


onstart:
    note_holder()
    problem = read_only(FOLDER / "results")
    if problem:
        raise WorkflowError(f"ERROR {problem}")


def failures():
    """Return {log: its lines that begin with ERROR} of the jobs that failed in this run."""
    found = {}
    for path in sorted(Path("results").glob("**/logs/**/*.log")):
        if path.stat().st_mtime >= STARTED:
            lines = path.read_text(errors="replace").splitlines()
            found[str(path)] = [line for line in lines if line.startswith("ERROR ")]
    return {path: lines for path, lines in found.items() if lines}


onerror:
    close_view()
    failed = failures()
    if failed:
        partial = Path(f"results/.{os.getpid()}.partial.errors.json")
        partial.write_text(json.dumps(failed, indent=1, ensure_ascii=False) + "\n")
        partial.replace(ERRORS)
        print("", *dict.fromkeys(line for lines in failed.values() for line in lines), sep="\n")
        print(f"More is in {', '.join(map(shown, failed))}.")
    print(f"Then go on with: {command()}", flush=True)
