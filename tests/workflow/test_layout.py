import ast
import re

import pytest
import yaml


def rules(root) -> dict[str, str]:
    found = {}
    for path in sorted((root / "workflow/rules").glob("*.smk")):
        parts = re.split(r"^rule (\w+):", path.read_text(), flags=re.M)[1:]
        found |= dict(zip(parts[::2], parts[1::2], strict=True))
    return found


def test_a_rule_its_script_and_its_log_share_a_name(root):
    for name, body in rules(root).items():
        assert f"../../scripts/{name}.py" in body, name
        assert re.search(rf"logs/{name}[./]", body), name
        # A changed downloader does not download again.
        assert f'library("{name}")' in body or name == "download_counts", name


def test_every_script_belongs_to_a_rule(root):
    assert {path.stem for path in (root / "scripts").glob("*.py")} == set(rules(root))


def test_every_rule_says_what_it_does(root):
    assert all(body.lstrip().startswith('"""') for body in rules(root).values())


def test_scripts_have_no_functions_branches_or_loops(root):
    unwanted = ast.FunctionDef | ast.If | ast.For | ast.While | ast.Try | ast.ClassDef
    for path in (root / "scripts").glob("*.py"):
        tree = ast.parse(path.read_text())
        assert not [node for node in ast.walk(tree) if isinstance(node, unwanted)], path.name


def test_no_score_reads_a_layout(root):
    for name in ("score_latent", "score_controls", "compare_latents", "score_labels"):
        assert "umap" not in rules(root)[name]
        assert "layout" not in rules(root)[name]
    for path in (root / "scripts/sclatent/benchmark").glob("*.py"):
        assert "cells.layout" not in path.read_text()


ORDER = ["files", "errors", "data", "training", "models", "baselines", "labels", "cells"]


def test_imports_point_one_way(root):
    later = {"report": {"report", "figures"}, "figures": {"figures"}, "benchmark": {"benchmark"}}
    base = {"files", "errors", "kernels", "data"}
    core = base | {"training", "models", "baselines"}
    allowed = {
        "kernels": {"kernels"},
        "data": base,
        "training": core,
        "models": core,
        "baselines": core,
        "labels": core | {"labels"},
        "cells": core | {"cells"},
        "benchmark": core | {"labels", "cells", "benchmark"},
        "figures": core | {"labels", "cells", "benchmark", "figures"},
        "report": core | {"labels", "cells", "benchmark", "figures", "report"},
    }
    assert later.keys() <= allowed.keys()
    for path in (root / "scripts/sclatent").glob("*/*.py"):
        for module in re.findall(
            r"^\s*from sclatent(?:\.(\w+))?[\w.]* import", path.read_text(), re.M
        ):
            if module:
                assert module in allowed[path.parent.name], f"{path}: {module}"


def pinned(path) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", path.read_text(), re.M))


@pytest.fixture
def pins(root):
    return pinned(root / "requirements.lock")


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-peers.lock"])
def test_every_pin_is_exact_and_plain(root, lock):
    lines = [
        line
        for line in (root / lock).read_text().splitlines()
        if line and not line.lstrip().startswith("#")
    ]
    assert len(lines) == len(pinned(root / lock))
    assert not any("+" in version for version in pinned(root / lock).values())


def test_the_lock_of_the_peers_only_adds_to_the_other(root, pins):
    peers = pinned(root / "requirements-peers.lock")
    assert pinned(root / "requirements-peers.in").items() <= peers.items()
    assert not peers.keys() & pins.keys()


def test_no_script_imports_a_peer(root):
    peers = {name.replace("-", "_") for name in pinned(root / "requirements-peers.lock")} | {"scvi"}
    peers -= {"triton"}  # which comes with PyTorch where there is a GPU
    for path in (root / "scripts").rglob("*.py"):
        assert not imports(path) & peers, path


IMPORTS = {
    "sklearn": "scikit-learn",
    "skmisc": "scikit-misc",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
    "umap": "umap-learn",
    "faiss": "faiss-cpu",
    "igraph": "python-igraph",
    "torch": "pytorch",
    "triton": "pytorch",  # which brings it where there is a GPU
    "matplotlib": "matplotlib-base",
}


def test_an_environment_lists_what_its_scripts_import(root):
    import sys

    bodies = rules(root)
    for name, body in bodies.items():
        env = re.search(r"^    conda:\n.*?(?:envs/)?(\w+)(?:_env|\.yaml)", body, re.M)[1]
        listed = {
            line.split()[0]
            for line in yaml.safe_load((root / f"envs/{env}.yaml").read_text())["dependencies"]
        }
        for path in closure(root, root / f"scripts/{name}.py"):
            for module in imports(path):
                if module not in sys.stdlib_module_names and module != "sclatent":
                    assert IMPORTS.get(module, module) in listed, (
                        f"{name} ({env}): {path.name} {module}"
                    )


def imports(path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def closure(root, script) -> set:
    found, todo = set(), [script]
    while todo:
        path = todo.pop()
        found.add(path)
        for module in re.findall(r"^\s*from (sclatent[\w.]*) import (.+)$", path.read_text(), re.M):
            for name in [module[0], *(f"{module[0]}.{n.strip()}" for n in module[1].split(","))]:
                target = root / "scripts" / (name.replace(".", "/") + ".py")
                if target.is_file() and target not in found:
                    todo.append(target)
    return found
