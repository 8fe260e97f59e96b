"""How a benchmark shows what it measured: a table that is printed and written, and all values."""

from pathlib import Path

from sclatent import files

TRIAL = "a trial on 2,000 cells and 500 genes: these numbers mean nothing"
"""What a table of `--quick` says of itself."""


def noted(lines: list[str], notes: list[str]) -> str:
    """Return the lines of a Markdown table with notes below it."""
    return "\n".join([*lines, "", *(f"- {note}" for note in notes), ""])


def publish(folder: Path, name: str, text: str, content: dict) -> None:
    """Print a table, and write it and its content as `name`.md and `name`.json into a folder."""
    print(text)
    files.write_json(folder / f"{name}.json", content)
    files.write_text(folder / f"{name}.md", text)
