"""What all tests share: real servers are looked for by name, and so is the source of llama.cpp."""

import os
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from time import monotonic

import pytest
import structlog
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent.parent
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"  # Debian keeps its servers out of PATH

SLOW_S = 7200  # of a long form: half an hour on a quiet machine, and soaks share theirs
# Of a test that starts gateways, some of them four, or a server, which Maven has to fetch the first time: seconds on a
# quiet machine, minutes on a starved one.
FAULTS_S = 600
FETCHED = {"kafka", "opensearch"}  # the fixtures of such servers
SAY_EVERY_S = 10.0

# How long a server is away that a test kills in mid-stream: a moment, and in the long form a minute.
outages = pytest.mark.parametrize("away_s", [0.2, pytest.param(60.0, marks=pytest.mark.slow)])

# How long an example takes says how busy the machine is; how fast we are is what the benches say.
settings.register_profile("headwater", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headwater")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give long forms and gateways that are hurt a time of their own; the one in pyproject.toml is for the others."""
    for item in items:
        if item.get_closest_marker("timeout"):
            continue
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(SLOW_S))
        elif item.path.is_relative_to(ROOT / "tests" / "faults") or FETCHED & {*getattr(item, "fixturenames", ())}:
            item.add_marker(pytest.mark.timeout(FAULTS_S))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("server"):
        (name,) = mark.args
        if shutil.which(name, path=SYSTEM_PATH) is None:
            absent(f"{name} is not installed; on Debian: apt-get install {name}")


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Undo what a command that ran within the tests' process made of logs: the next one's level may be another."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def progress(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Say how far a long form is, now and then, whatever is captured; a short form says nothing."""
    is_long = request.node.get_closest_marker("slow") is not None
    began = said_at = monotonic()

    def say(words: str) -> None:
        nonlocal said_at
        if is_long and monotonic() - said_at >= SAY_EVERY_S:
            said_at = monotonic()
            with capsys.disabled():
                print(f"\n{monotonic() - began:6.0f} s: {words}", end="", flush=True)  # noqa: T201

    return say


@pytest.fixture(scope="session")
def llama_source() -> Path:
    """The unpacked source of llama-cpp-python, with llama.cpp's vocabularies, templates and tools under `vendor/`."""
    source = ROOT / "build" / f"llama-cpp-{version('llama-cpp-python')}" / "source"
    if not source.is_dir():
        absent(f"{source} is not there; `./just setup` compiles llama.cpp from it")
    return source


def absent(reason: str) -> None:
    """Skip by name on a developer's machine; in CI nothing may be missing."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
