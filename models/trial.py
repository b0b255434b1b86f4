"""Tries a model in a child process before a flow touches it: `python -m models.trial PATH`.

A native crash cannot be caught, only survived: llama.cpp that was built by GCC 12 for a processor with AMX ends the
process at the first 4-bit decode, and a truncated or forged file may as well. The child opens the release, classifies
its golden events (or a line of our own), and writes what came out as one line of JSON.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from models.contracts.errors import ConfigError, HeadwaterError, UntrustedError
from models.contracts.wire import NOT_DECODED, encode
from models.llama import system_features
from models.opening import open_classifier

_LINE = "sshd: Failed password for invalid user admin from 192.0.2.7 port 51122 ssh2"
_TIMEOUT_S = 120.0
_TIMEOUT_S_PER_BYTE = 0.5e-6  # a billion parameters on one slow core
_CRASHES = (signal.SIGSEGV, signal.SIGILL, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE)


class Answer(Struct, frozen=True, kw_only=True):
    """What the model made of one golden event."""

    label: str
    confidence: float
    expected: str
    expected_confidence: float


class Report(Struct, frozen=True, kw_only=True):
    """How a model did in its trial."""

    release: str = ""
    opened_s: float = 0.0
    answers: tuple[Answer, ...] = ()
    refused: str = ""  # why it was refused, in words
    by_configuration: bool = False  # it was the configuration's fault, not the file's
    features: str = ""  # what llama.cpp was built with

    @property
    def wrong(self) -> tuple[Answer, ...]:
        """The golden events that got another label than they should."""
        return tuple(answer for answer in self.answers if answer.label != answer.expected)


def try_model(
    path: str | Path, *, sha256: str = "", task: str = "", context_tokens: int = 1024, timeout_s: float | None = None
) -> Report:
    """Open and ask a model in a child process; a large one is given more time.

    Raises:
        UntrustedError: it was refused, crashed, hung, or got a golden event wrong.
        ConfigError: the configuration does not suit it.
    """
    root = Path(__file__).parent.parent  # where the child finds us, so paths must not be relative
    file, task_file = (str(Path(name).absolute()) if Path(name).is_file() else str(name) for name in (path, task))
    if timeout_s is None:
        timeout_s = _TIMEOUT_S + (Path(file).stat().st_size * _TIMEOUT_S_PER_BYTE if Path(file).is_file() else 0)
    command = [sys.executable, "-m", "models.trial", file, sha256, task_file, str(context_tokens)]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise UntrustedError(
            f"{path}: its trial took more than {timeout_s:g} s; stopped it and refused the model"
        ) from error
    try:
        report = msgspec.json.decode(done.stdout, type=Report)
    except NOT_DECODED as error:
        raise UntrustedError(f"{path}: {_how_it_ended(done)}; refused the model") from error
    if report.refused:
        raise (ConfigError if report.by_configuration else UntrustedError)(report.refused)
    if report.wrong:
        first = report.wrong[0]
        raise UntrustedError(
            f"{path}: {len(report.wrong)} of {len(report.answers)} golden events got another label, the first "
            f"`{first.label}` instead of `{first.expected}`; refused the model"
        )
    return report


def main(path: str, sha256: str, task: str, context_tokens: str) -> None:
    """Try a model in this process and write the report to standard output."""
    # Standard output is the report's.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        report = _try(path, sha256, task, int(context_tokens))
    except HeadwaterError as error:
        report = Report(refused=str(error), by_configuration=isinstance(error, ConfigError))
    sys.stdout.buffer.write(encode(report) + b"\n")


def _try(path: str, sha256: str, task: str, context_tokens: int) -> Report:
    begun = time.monotonic()
    classifier = open_classifier(path, sha256=sha256, task=task, threads=1, context_tokens=context_tokens)
    opened_s = time.monotonic() - begun
    release = classifier.release
    names = release.task.label_names
    opinions = classifier.classify([golden.text for golden in release.golden])
    # Many at once and one alone take different ways through llama.cpp; both must hold.
    classifier.classify([f"{number} {_LINE}" for number in range(4)])
    classifier.classify([_LINE])
    classifier.close()
    tops = [max(range(len(names)), key=opinion.probabilities.__getitem__) for opinion in opinions]
    answers = (
        Answer(
            label=names[top],
            confidence=opinion.probabilities[top],
            expected=golden.label,
            expected_confidence=golden.confidence,
        )
        for golden, opinion, top in zip(release.golden, opinions, tops, strict=True)
    )
    return Report(release=release.title, opened_s=opened_s, answers=tuple(answers), features=system_features())


def _how_it_ended(done: subprocess.CompletedProcess[bytes]) -> str:
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    last = said[-1][:200] if said else "nothing"
    if -done.returncode not in _CRASHES:
        return f"its trial ended with {done.returncode} and no report; its last words: {last}"
    name = signal.Signals(-done.returncode).name
    return (
        f"its trial was killed by {name} (last words: {last}). Either the file is damaged, or llama.cpp was built by "
        "GCC 12 for a processor with AMX, which breaks 4-bit models: if `AMX_INT8 = 1` is in what "
        "`python -c 'from models.llama import system_features; print(system_features())'` prints, run `./just setup`, "
        "which builds it without AMX"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
