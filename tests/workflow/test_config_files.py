"""Config files and targets that Snakemake would answer with a traceback."""

import os
import re
import shlex
import subprocess
import sys

import pytest

pytestmark = pytest.mark.workflow
PLUGIN = "workflow/plugin"


@pytest.fixture
def said(root, tmp_path, monkeypatch, capsys):
    """Return a function that runs the command line up to its end, and returns what it says."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text("seeds: [0]\n")

    def said(*arguments: str) -> str:
        from snakemake.cli import main

        arguments = ["-n", "-s", str(root / "Snakefile"), *arguments]
        monkeypatch.setattr(sys, "argv", ["snakemake", *arguments])
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 1
        lines = [line for part in capsys.readouterr() for line in part.splitlines()]
        (line,) = [line for line in lines if not line.startswith("Using workflow specific")]
        assert "Fix: " in line
        return line

    return said


CONTENTS = {
    "empty": (b"", r"E115 \S+: it is empty"),
    "comment": (b"# seeds: [0]\n", r"E115 \S+: it is empty"),
    "list": (b"- seeds\n", r"E115 \S+: it holds a list"),
    "text": (b"seeds\n", r"E115 \S+: it holds text without keys"),
    "number": (b"5\n", r"E115 \S+: it holds a single value"),
    "tab": (b"qc:\n\tn_mads: 3\n", r"E114 \S+: there is a tab in line 2. Fix: indent with spaces"),
    "bracket": (b"seeds: [0\nqc: {n_mads: 3}\n", r"E114 \S+: line 2 is no YAML"),
    "quote": (b'latents: "pca\n', r"E114 \S+: line 2 is no YAML"),
    "indent": (b"qc:\n  n_mads: 3\n min_counts: 2\n", r"E114 \S+: line 3 is no YAML"),
    "colon": (b"qc: n_mads: 3\n", r"E114 \S+: line 1 is no YAML"),
    "date": (b"seeds: 2020-99-99\n", r"E114 \S+: it cannot be read \(ValueError: month"),
    "deep": (b"seeds: " + b"[" * 5000, r"E114 \S+: it cannot be read \(RecursionError"),
    "escape": (b"seeds: \x1b[31m\n", r"E114 \S+: it cannot be read \(ReaderError"),
    "binary": (bytes(range(256)) * 20, r"E113 \S+: it holds binary data"),
    "latin": (
        "qc: 1\nname: café\n".encode("latin1"),
        r"E113 \S+: byte 0xe9 in line 2 is not UTF-8",
    ),
    "utf16": ("seeds: [0]\n".encode("utf-16"), r"E113 \S+: it is in UTF-16"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_config_file_that_cannot_be_read_is_named_with_the_reason_in_one_line(
    said, tmp_path, name
):
    content, pattern = CONTENTS[name]
    (tmp_path / f"{name}.yaml").write_bytes(content)
    line = said("--configfile", f"{name}.yaml")
    assert re.match(f"ERROR {pattern}", line)
    assert f" {name}.yaml: " in line
    assert line.isprintable()


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("my.yml", r"E111 my.yml: there is no such config file in \S+\. Fix: did you mean my.yaml"),
        ("other", r"E111 other: .* Fix: name one that is there, such as .*my.yaml"),
        ("nowhere/my.yaml", r"E111 nowhere/my.yaml: .* Fix: correct the path: there is no folder"),
        (".", r"E113 \.: it is a folder. Fix: did you mean my.yaml"),
        ("loop.yaml", r"E113 loop.yaml: it cannot be read \(Too many levels of symbolic links\)"),
    ],
)
def test_a_config_file_that_is_not_there_or_no_file_is_named_with_what_may_be_meant(
    said, tmp_path, path, pattern
):
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    assert re.match(f"ERROR {pattern}", said("--configfile", path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_config_file_without_permission_is_named(said, tmp_path):
    (tmp_path / "mine.yaml").touch(mode=0)
    line = said("--configfile", "mine.yaml")
    assert line.startswith("ERROR E113 mine.yaml: it cannot be read (Permission denied)")


@pytest.mark.parametrize("target", ["results/x.h5ad", "results/there.h5ad", "all"])
@pytest.mark.parametrize("option", [["--configfile", "my.yaml"], ["--config", "seeds=[0]"]])
def test_a_target_after_the_config_is_answered_with_the_command_that_is_right(
    said, tmp_path, root, option, target
):
    (tmp_path / "results").mkdir()
    (tmp_path / "results/there.h5ad").write_bytes(b"\x89HDF\xff\0")
    line = said(*option, target)
    assert line.startswith(f"ERROR E112 {target}: a target stands after {option[0]}, ")
    command = shlex.split(line[line.index("Fix: ") + 5 :])
    assert command == ["snakemake", target, "-n", "-s", str(root / "Snakefile"), *option]


@pytest.mark.parametrize(
    ("entry", "pattern"),
    [
        ("seeds", r"E116 --config seeds: it has no value"),
        ("training.n_steps=5", r"E116 .* Fix: write 'training: {n_steps: 5}' into a file"),
        ("1st=5", r"E116 --config 1st=5: '1st' is not the name of a key"),
    ],
)
def test_a_value_of_config_that_cannot_be_read_is_said_in_one_line(said, entry, pattern):
    assert re.match(f"ERROR {pattern}", said("--config", entry))


@pytest.mark.parametrize("ours", [True, False])
def test_only_this_workflow_has_its_errors_in_one_line(root, tmp_path, ours):
    (tmp_path / "Snakefile").write_text("rule all:\n")
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "none.yaml"]
    command += ["-s", str(root / "Snakefile")] if ours else []
    environment = {**os.environ, "PYTHONPATH": str(root / PLUGIN)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 1
    assert ("ERROR E111 none.yaml: " in done.stderr) == ours
    assert ("Traceback" in done.stderr) == (not ours)


def test_make_puts_the_plugin_on_the_path_of_the_environments_that_it_makes(root):
    place = re.search(
        r"@echo (\S+) >.*site-packages\)/sclatent.pth", (root / "Makefile").read_text()
    )
    packages = root / ".venv/lib/python3.11/site-packages"
    assert os.path.normpath(packages / place[1]) == str(root / PLUGIN)
    for recipe in ("Dockerfile", "sclatent.def"):
        assert f"echo /opt/sclatent/{PLUGIN} >" in (root / "containers" / recipe).read_text()
