"""Triages files offline: the flow's own steps over the lines of files, one JSON line out per line in, in order."""

import hashlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path
from stat import S_ISREG
from time import time
from typing import BinaryIO

import click
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dataflows.connectors.batch import Batch
from dataflows.operators.classify import classify_window
from dataflows.operators.decide import decide_window
from dataflows.operators.decode import Reading, decode_records
from dataflows.running.model import open_model
from dataflows.sections import Model
from models.classifier import Classifier
from models.contracts.errors import ConfigError, UnavailableError
from models.contracts.event import DeadLetter
from models.contracts.policy import Policy
from models.contracts.verdict import Verdict
from models.contracts.wire import encode_lines

_WINDOW_LINES = 256  # the classifier sorts what it is given, so a larger window shares more of its work
_PIECE_BYTES = 64 << 10
_LONGEST_LINE_BYTES = 1 << 20  # the rest of a longer line is skipped; its text is cut at the event limit anyway


class Job(Struct, frozen=True, kw_only=True):
    """What to classify, and with what."""

    files: Sequence[str]  # `-` is standard input
    text_path: str = ""
    release: str = "soc-triage"
    task: str = ""
    threads: int = 0


def classify_files(job: Job) -> int:
    """Write an answer to standard output for every line of every file; return the exit code.

    Raises:
        ConfigError: the model or the task cannot be used.
        UntrustedError: the model is not what was promised.
        UnavailableError: standard output does not take the answers.
    """
    if sys.stdout is None:
        raise ConfigError("standard output: found closed, wanted where the answers go; nothing was read")
    reading = Reading(text_path=job.text_path)
    out = sys.stdout.buffer
    unread = 0
    answered, buried = 0, 0
    with ExitStack() as stack:
        classifier = open_model(Model(release=job.release, task=job.task, threads=job.threads)).classifier
        stack.callback(classifier.close)
        progress = stack.enter_context(_progress())
        for name in job.files:
            bar = progress.add_task(name, total=None, lines=0)
            try:
                with _opened(name) as file:
                    progress.update(bar, total=_size(file))
                    for lines in windows(name, file):
                        answers = answer(lines, reading, classifier, classifier.release.policy)
                        _write(out, answers)
                        answered += len(answers)
                        buried += sum(isinstance(each, DeadLetter) for each in answers)
                        progress.update(bar, advance=sum(len(record) + 1 for record in lines.records), lines=answered)
            except BrokenPipeError:
                raise
            except OSError as error:  # of reading alone
                click.echo(f"headwater: {name}: {error.strerror}; went on with the next file", err=True)
                unread += 1
    if buried:
        click.echo(
            f"headwater: {buried} of {answered} lines got a dead letter instead of a verdict; see `reason`", err=True
        )
    return 1 if unread else 0


def _write(out: BinaryIO, answers: Sequence[Verdict | DeadLetter]) -> None:
    try:
        out.write(encode_lines(answers))
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # What is still buffered goes nowhere when the interpreter flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        raise UnavailableError(f"standard output: {error.strerror}; the answers end there") from error


def answer(lines: Batch, reading: Reading, classifier: Classifier, policy: Policy) -> list[Verdict | DeadLetter]:
    """Return one verdict or dead letter per line, in order."""
    decoded = decode_records(lines, reading)
    answers: dict[str, Verdict | DeadLetter] = {letter.id: letter for letter in decoded.letters}
    if decoded.events:
        classified = classify_window(decoded.events, classifier)
        answers.update((letter.id, letter) for letter in classified.letters)
        if classified.judged is not None:
            answers.update((verdict.id, verdict) for verdict in decide_window(classified.judged, policy))
    return [answers[own_id] for own_id in lines.ids]


def windows(name: str, file: BufferedReader) -> Iterator[Batch]:
    """Cut a file into windows of lines; a line's id is its file's and its number, counted from 1."""
    received_at_ms = _written_at_ms(file)
    source, origin = _source(name), _origin(name)
    number = 1
    for lines in _lines_at_hand(file):
        for start in range(0, len(lines), _WINDOW_LINES):
            records = lines[start : start + _WINDOW_LINES]
            ids = [f"{origin}.{number + offset}" for offset in range(len(records))]
            yield Batch(source=source, received_at_ms=received_at_ms, records=records, ids=ids)
            number += len(records)


def _lines_at_hand(file: BufferedReader) -> Iterator[list[bytes]]:
    """Yield lines without their ends as they come, so that a pipe that trickles is answered line by line.

    Memory is bounded: of a line that is too long, only the beginning is kept. What follows the last line end is a line
    of its own, unless it is empty.
    """
    rest = b""
    while piece := file.read1(_PIECE_BYTES):
        *whole, rest = (rest + piece).split(b"\n")
        rest = rest[:_LONGEST_LINE_BYTES]
        if whole:
            yield [line[:_LONGEST_LINE_BYTES].removesuffix(b"\r") for line in whole]
    if rest:
        yield [rest]


def _opened(name: str) -> BufferedReader:
    # Its own object, so that leaving the `with` does not close standard input for good.
    return os.fdopen(os.dup(0), "rb") if name == "-" else Path(name).open("rb")


def _source(name: str) -> str:
    """Return a name that verdicts may carry: the file's own, without what a name may not hold."""
    if name == "-":
        return "stdin"
    return re.sub(r"[^A-Za-z0-9_.-]", "-", Path(name).name).lstrip("_.-")[:64] or "file"


def _origin(name: str) -> str:
    """Return what tells this file's ids from another's: the same for the same absolute path."""
    if name == "-":
        return "stdin"
    return hashlib.blake2b(str(Path(name).absolute()).encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()


def _written_at_ms(file: BufferedReader) -> int:
    """Return when a file was last written, the same in every run; for a pipe, now."""
    status = os.fstat(file.fileno())
    return int(1000 * (status.st_mtime if S_ISREG(status.st_mode) else time()))


def _size(file: BufferedReader) -> int | None:
    status = os.fstat(file.fileno())
    return status.st_size if S_ISREG(status.st_mode) else None


def _progress() -> Progress:
    """Return a bar on standard error, shown only where that is a terminal and the answers do not go there too."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[lines]} lines"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or sys.stdout.isatty(),
    )
