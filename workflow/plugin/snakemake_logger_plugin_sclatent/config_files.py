"""What is wrong with the config files and the --config of a command, by the error that ended it."""

import codecs
import difflib
import logging
import shlex
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

ME = "workflow/plugin/snakemake_logger_plugin_sclatent"
SUFFIXES = (".yaml", ".yml", ".json")
KINDS = {type(None): "is empty", list: "holds a list", str: "holds text without keys"}


def in_a_line(record: logging.LogRecord) -> bool:
    """Put one line in the place of an error that is about the config of a command.

    This is a filter of Snakemake's logger that lets every record pass. What was read is known by
    the frames of the error that Snakemake is about to show: its text does not name the file.
    """
    error = sys.exc_info()[1]
    if error is not None and record.levelno >= logging.ERROR:
        frames = traceback.walk_tb(error.__traceback__)
        line = problem(error, {frame.f_code.co_name: frame.f_locals for frame, _ in frames})
        if line:
            line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)
            record.msg = f"ERROR {line}"
    return True


def problem(error: BaseException, frames: dict[str, dict]) -> str | None:
    """Return what is wrong with the config; None where an error is about something else.

    Parameters
    ----------
    error
        What ended the command.
    frames
        The local variables of the functions that it went through, by their names.
    """
    args = frames.get("args_to_api", {}).get("args")
    if args is None or not is_ours(args.snakefile):
        return None
    if "parse_config" in frames:
        return entry_problem(frames["parse_config"]["entry"], args.config)
    if "_get_overwrite_config" not in frames or "load_configfile" not in frames:
        return None
    path, options = frames["_get_overwrite_config"]["f"], args.configfile[1:]
    targets = [str(option) for option in options if option.suffix.lower() not in SUFFIXES]
    if str(path) in targets:
        return target_problem("--configfile", targets)
    return file_problem(path, error, frames["load_configfile"])


def is_ours(snakefile) -> bool:
    """Say whether a Snakefile, or the one that Snakemake finds by itself, is of this workflow."""
    from snakemake.api import resolve_snakefile

    path = resolve_snakefile(snakefile, allow_missing=True)
    return isinstance(path, Path) and (path.parent / ME).is_dir()


def entry_problem(entry: str, entries: list[str]) -> str:
    """Return what is wrong with an entry of --config."""
    key, equals, value = entry.partition("=")
    if not equals and (entry != entries[0] or "/" in entry):
        return target_problem("--config", [item for item in entries if "=" not in item])
    if not equals:
        return f"E116 --config {entry}: it has no value. Fix: --config {entry}=..."
    section, _, inside = key.partition(".")
    line = f"{section}: {{{inside}: {value}}}" if inside else f"key: {value}"
    what = f"'{key}' is not the name of a key"
    return f"E116 --config {entry}: {what}. Fix: write '{line}' into a file, for --configfile"


def target_problem(option: str, targets: list[str]) -> str:
    """Return that targets stand after an option that takes all that follows."""
    words = [word for word in sys.argv[1:] if word not in targets]
    what = f"a target stands after {option}, which takes all that follows"
    return f"E112 {targets[0]}: {what}. Fix: {shlex.join(['snakemake', *targets, *words])}"


def file_problem(path: Path, error: BaseException, loaded: dict) -> str:
    """Return what is wrong with a config file, where `loaded` may hold what was in it."""
    if isinstance(error, FileNotFoundError):
        return f"E111 {path}: there is no such config file in {Path.cwd()}. Fix: {hint(path)}"
    if isinstance(error, IsADirectoryError):
        return f"E113 {path}: it is a folder. Fix: {hint(path / 'my.yaml')}"
    if isinstance(error, OSError):
        fix = "give yourself permission to read it, or name another"
        return f"E113 {path}: it cannot be read ({error.strerror}). Fix: {fix}"
    if not_text := no_text(path):
        return f"E113 {path}: {not_text}"
    if "config" in loaded:
        kind = KINDS.get(type(loaded["config"]), "holds a single value")
        fix = "write keys with values, such as 'seeds: [0, 1]'"
        return f"E115 {path}: it {kind}. Fix: {fix}"
    return f"E114 {path}: {no_yaml(error)}"


def hint(path: Path) -> str:
    """Return which config file may be meant by one that is not there."""
    if not path.parent.is_dir():
        return f"correct the path: there is no folder {path.parent}"
    there = sorted(item.name for item in path.parent.iterdir() if item.suffix.lower() in SUFFIXES)
    close = difflib.get_close_matches(path.name, there, n=1)
    if close:
        return f"did you mean {path.with_name(close[0])}?"
    listed = ", ".join(str(path.with_name(name)) for name in there[:10])
    return f"name one that is there, such as {listed}" if there else "name a file in YAML"


def no_text(path: Path) -> str | None:
    """Return why a file is no text in UTF-8, and what to do; None where it is."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "it is in UTF-16. Fix: save it in UTF-8"
    if b"\0" in content:
        return "it holds binary data and no text. Fix: name a file in YAML"
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{content[error.start]:02x} in line {line} is not UTF-8"
        return f"{what}. Fix: save it in UTF-8"
    return None


def no_yaml(error: BaseException) -> str:
    """Return where a text breaks the rules of YAML, and what to do."""
    links = list(chain(error))
    marked = [link for link in links if getattr(link, "problem_mark", None)]
    if not marked:
        said = (str(links[-1]).strip().splitlines() or [""])[0]
        return f"it cannot be read ({type(links[-1]).__name__}: {said}). Fix: write plain YAML"
    line, what = marked[0].problem_mark.line + 1, marked[0].problem
    if "'\\t'" in what:
        return f"there is a tab in line {line}. Fix: indent with spaces"
    if "constructor" in what:
        return f"line {line} is refused ({what}). Fix: write plain values, without tags"
    fix = "close what is open there or above (brackets, quotes), and indent alike what is alike"
    return f"line {line} is no YAML ({what}). Fix: {fix}"


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
