"""The house: what holds for every file of the project."""

from __future__ import annotations

import ast
import graphlib
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "rebu_ray"
SOURCE_SUFFIXES = {".py", ".sh", ".js", ".css", ".html", ".sql", ".lua"}
MAX_LINES = 500

DOWN = {
    "store": set[str](),
    "simulate": set[str](),
    "results": set[str](),
    "client": {"results"},
    "output": set[str](),
    "shipping": {"client"},
    "process": {"store"},
    "ingest": {"process", "store"},
    "access": {"ingest", "process", "store"},
    "platform": {"access", "ingest", "process", "store"},
    "demo": {"client", "platform", "shipping", "simulate"},
    "connect": {"client", "platform"},
    "browsing": {"client", "connect"},
    "keyring": {"connect"},
    "letters": {"client", "connect"},
    "reindexing": {"client", "ingest"},
    "scaling": {"client", "connect"},
    "nodes": {"platform"},
    "backups": {"connect", "ingest", "platform", "store"},
    "analytics": {"client", "connect", "ingest", "output", "platform"},
    "cli": {
        *("access", "analytics", "backups", "browsing", "client", "connect", "demo", "ingest", "keyring", "letters"),
        *("nodes", "output", "platform", "process", "reindexing", "scaling", "shipping", "simulate", "store"),
    },
}
"""What each phase may import, besides itself and the shared vocabulary. The vocabulary is every other module."""


def project_files() -> list[Path]:
    """Every file that is or would be committed; all but the ignored folders where there is no git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0 and listed.stdout:
        files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        ignored = {line.strip("/\n") for line in (ROOT / ".gitignore").read_text().splitlines()} | {".git"}
        files = [p for p in ROOT.rglob("*") if not ignored.intersection(p.relative_to(ROOT).parts)]
    return sorted(p for p in files if p.is_file())


def texts() -> Iterator[tuple[str, str]]:
    """(path within the project, content) of every text file."""
    for path in project_files():
        try:
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(path) for path in modules()}


def phase(module: str) -> str:
    """The first name below the package: `rebu_ray.store.rows` -> `store`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> Iterator[str]:
    """Every module of the package that the file imports, wherever in the file."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name == "rebu_ray" or name.startswith("rebu_ray."))


def imports_at_once(path: Path) -> Iterator[str]:
    """The modules of the package that importing the file imports."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("rebu_ray"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in NAMES else node.module


def test_a_command_does_not_wait_for_what_it_does_not_use() -> None:
    """Nor must Ray be imported before the platform has set its environment."""
    slow = {"ray", "duckdb", "sqlalchemy", "rebu_ray.build"}
    asked = f"import sys, rebu_ray.cli; print(*{slow}.intersection(sys.modules))"
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_pandas_is_loaded_by_whoever_makes_a_frame_and_nobody_else() -> None:
    """Each process of a platform would have it: pyarrow looks for it with the first list that becomes an array."""
    asked = """
import sys
import rebu_ray.cli, rebu_ray.ingest.coordinator, rebu_ray.ingest.shard, rebu_ray.process.tasks
import pyarrow
table = pyarrow.table({"n": pyarrow.array([1, 2])})
print("pandas" in sys.modules, list(table.to_pandas()["n"]), type(sys.modules["pandas"]).__name__)
"""
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "False [1, 2] module"
    alone = "import sys, rebu_ray.process.tables; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", alone], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_no_module_imports_itself_by_way_of_others() -> None:
    below = {module_name(path): set(imports_at_once(path)) for path in modules()}
    try:
        order = list(graphlib.TopologicalSorter(below).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
    assert set(order) >= NAMES


def test_the_lock_pins_every_package_by_hash_and_names_no_place() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    entries = re.findall(r"^[^\s#].*?(?=^[^\s#]|\Z)", lock, re.M | re.S)
    assert len(entries) > 50
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+(\[[a-z0-9,]+\])?==[^\s;]+", entry), entry[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:80]
    assert "://" not in lock
    assert " @ " not in lock
    assert not re.search(r"^-", lock, re.M)


def test_the_lock_has_every_requirement_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = (ROOT / "requirements.lock").read_text()
    pinned = dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", lock, re.M))
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["test"], *extras["build"], *extras["traces"]]:
        wanted = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[a-z0-9,]+\])?(?:(==|>=)(\S+))?", requirement)
        assert wanted, requirement
        name, comparison, version = wanted.groups()
        assert name in pinned, f"{requirement} is not in requirements.lock: make lock"
        if comparison == "==":
            assert pinned[name] == version, f"requirements.lock has another version than {requirement}: make lock"


def test_the_installed_package_is_this_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    package = importlib.import_module("rebu_ray")
    assert importlib.metadata.version(project["name"]) == project["version"]
    assert {Path(place).resolve() for place in package.__path__} == {PACKAGE}


def test_source_files_are_small_enough_to_read_in_one_sitting() -> None:
    lengths = {name: text.count("\n") for name, text in texts() if Path(name).suffix in SOURCE_SUFFIXES}
    assert len(lengths) > 10
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    home = r"(?<![\w.}/-])/(?:home|Users)/\w+/"
    here = [re.escape(str(place)) + r"(?![\w-])" for place in (ROOT, Path.home()) if len(place.parts) > 1]
    found = re.compile("|".join([home, *here]))
    assert {name: match.group() for name, text in texts() if (match := found.search(text))} == {}


def test_no_file_names_a_package_registry() -> None:
    found = re.compile(
        r"\bpypi\.(?:org|python)|pythonhosted\.org|--(?:extra-)?index-url[= ]|--find-links[= ]|registry\.npmjs"
    )
    assert {name: match.group() for name, text in texts() if (match := found.search(text))} == {}


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_imports_go_down(path: Path) -> None:
    own = phase(module_name(path))
    may = DOWN.get(own, set()) | {own}
    if module_name(path) == "rebu_ray":
        may = {"client"}
    upward = {name for name in imports(path) if phase(name) in DOWN and phase(name) not in may}
    assert upward == set(), f"{own or 'rebu_ray'} may import {sorted(may)} and the shared vocabulary only"


def environment_reads(path: Path) -> Iterator[str]:
    """`line: what` for each use of the process environment."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            names = {alias.name for alias in node.names} & {"environ", "environb", "getenv"}
            yield from (f"{node.lineno}: from os import {name}" for name in names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.environb", "os.getenv"}:
            yield f"{node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_settings_alone_read_the_environment(path: Path) -> None:
    own = phase(module_name(path))
    if own == "settings":
        return
    if own == "platform":  # hands its environment on to Ray and Valkey; what Rebu is told, settings read
        read = r"""(?:environ\.get\(|getenv\(|environ\[)\s*f?["']REBU_\w*["']\]?(?!\s*=[^=])"""
        assert re.findall(read, path.read_text(encoding="utf-8")) == []
        return
    assert list(environment_reads(path)) == []
