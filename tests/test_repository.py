"""What holds for the checkout as a whole, and what no linter looks at."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
LINES_MAX = 400

# What pip-compile likes to leave in a lock, and what people paste with a command: another machine has none of it.
REGISTRY = re.compile(r"pypi\.org|pythonhosted|--(extra-)?index-url|--find-links|--trusted-host|registry\.|artifactory")
MACHINE = re.compile(r"(?<![\w.])/(home|root|Users|work|tmp)/\w")


def tracked() -> list[Path]:
    """The files that git knows and that are there."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    # safe.directory: build servers check out as one user and test as another.
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [path for name in names.split("\0") if name and (path := ROOT / name).is_file()]


def text_of(path: Path) -> str:
    """The text of a file; of a file that is none, nothing."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def pinned(name: str) -> dict[str, tuple[str, int]]:
    """The packages of a lock file: version, and number of hashes."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", " ").splitlines()
    found: dict[str, tuple[str, int]] = {}
    for line in lines:
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"([a-z0-9.-]+)==(\S+)((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*", line)
        assert match, f"{name}.txt: {line[:80]!r} is not a pinned package with hashes"
        found[match[1]] = match[2], match[3].count("--hash")
    return found


def wanted(group: str | None) -> list[Requirement]:
    """The requirements that pyproject.toml states: of the package, or of a dependency group."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    if group is None:
        return [Requirement(one) for one in project["project"]["dependencies"]]
    found: list[Requirement] = []
    for one in project["dependency-groups"][group]:
        found += wanted(one["include-group"]) if isinstance(one, dict) else [Requirement(one)]
    return found


def test_top_level_is_what_the_readme_describes() -> None:
    """A newcomer's first view; notes and reports pile up there first."""
    allowed = {"pyproject.toml", "meshsync", "tests", "topologies", "scripts", "README.md"}
    allowed |= {"LICENSE", "CHANGELOG.md", "requirements"}
    found = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert {name for name in found if not name.startswith(".")} <= allowed


def test_locks_and_docs_work_on_another_machine() -> None:
    """An index, a cache or a home directory in them is one that the reader does not have."""
    documents = [path for path in tracked() if path.suffix in {".md", ".txt", ".toml", ".yml", ".yaml"}]
    assert ROOT / "requirements" / "dev.txt" in documents
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line[:100]}"
        for path in documents
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if REGISTRY.search(line) or MACHINE.search(line)
    ]
    assert found == []


def test_nothing_names_this_checkout() -> None:
    """The path of the checkout in a file means that somebody's output was committed."""
    assert [path.relative_to(ROOT) for path in tracked() if f"{ROOT}/" in text_of(path)] == []


def test_files_can_be_read_in_one_sitting() -> None:
    """When a file grows past the bound, look for the second thing that it has started to do."""
    sources = [
        path for path in tracked() if path.suffix in {".py", ".sql", ".js", ".css"} or path.parent.name == "scripts"
    ]
    lengths = {str(path.relative_to(ROOT)): text_of(path).count("\n") for path in sources}
    assert {name: length for name, length in lengths.items() if length > LINES_MAX} == {}


def test_every_script_is_executable_and_explains_itself() -> None:
    """`scripts/x --help` is what one types first; it must work before anything is installed, and change nothing."""
    scripts = [path for path in tracked() if path.parent in {ROOT / "scripts", ROOT / ".ci"}]
    assert ROOT / "scripts" / "test" in scripts
    for script in scripts:
        assert os.access(script, os.X_OK), f"{script} is not executable"
        done = subprocess.run([script, "--help"], capture_output=True, text=True, check=False, cwd="/", timeout=60)
        assert done.returncode == 0, f"{script} --help: {done.stderr}"
        assert done.stdout.lower().startswith("usage:"), f"{script} --help has no usage text"


def test_locks_hold_what_the_project_asks_for() -> None:
    """Otherwise the tests run against versions that the metadata forbids.  Mend it with scripts/lock."""
    run, dev = pinned("run"), pinned("dev")
    for requirement, lock in [*((one, run) for one in wanted(None)), *((one, dev) for one in wanted("dev"))]:
        name = canonicalize_name(requirement.name)
        assert name in lock, f"{name} is not locked"
        assert requirement.specifier.contains(Version(lock[name][0])), f"{requirement}: locked is {lock[name][0]}"
        assert requirement.specifier, f"{name} has no bound"


def test_the_tests_run_what_users_run() -> None:
    """The environment of the tests is the users' environment and more, in the same versions."""
    run, dev = pinned("run"), pinned("dev")
    assert run.items() <= dev.items()


def test_every_dependency_says_what_it_is_for() -> None:
    """Each is code that everyone who installs meshsync runs."""
    text = (ROOT / "pyproject.toml").read_text()
    block = text.partition("\ndependencies = [\n")[2].partition("\n]")[0]
    assert [line for line in block.splitlines() if not re.fullmatch(r'    "[^"]+", +# .+', line)] == []


def test_every_test_says_what_would_be_broken() -> None:
    """A test without a reason is deleted when it is in the way, or kept for ever because nobody dares."""
    silent = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in tracked()
        if path.suffix == ".py" and (ROOT / "tests") in path.parents
        for node in ast.walk(ast.parse(text_of(path)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and ast.get_docstring(node) is None
    ]
    assert silent == []


def test_changelog_knows_the_version() -> None:
    """Who upgrades looks there first."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(rf"^## .*\b{re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_core_takes_chance_as_an_argument() -> None:
    """The core may name the type random.Random; drawing by itself would make runs that no seed replays."""
    found = []
    for path in (ROOT / "meshsync" / "core").rglob("*.py"):
        tree = ast.parse(text_of(path))
        types = {id(node.annotation) for node in ast.walk(tree) if isinstance(node, ast.arg | ast.AnnAssign)}
        found += [
            f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("random.") and id(node) not in types
        ]
        found += [
            f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "random"
        ]
    assert found == []


def test_no_test_sleeps_for_real() -> None:
    """Waiting for time in place of a condition is slow on a fast machine and red on a slow one."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in tracked()
        if path.suffix == ".py" and path.name.startswith("test_")
        for node in ast.walk(ast.parse(text_of(path)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "sleep"}
    ]
    assert found == []
