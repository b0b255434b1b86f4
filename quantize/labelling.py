"""Labelling by hand: an event, what the model thinks of it, a key; and again."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Protocol

import click
from msgspec import Struct
from rich.console import Console, Group, RenderableType
from rich.markdown import Markdown
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from models.contracts.task import Task
from quantize.label_file import Given, LabelFile
from quantize.terminal import visible

ACCEPT, SKIP, UNDO, QUIT, RULES, BY_NAME = "", "s", "u", "q", "?", "/"
_LETTERS = "".join(letter for letter in "abcdefghijklmnopqrstuvwxyz" if letter not in SKIP + UNDO + QUIT)
_PLACES = "123456789" + _LETTERS + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MOST_SHOWN = 9  # labels beside an event; of more, the likeliest
_BAR_COLUMNS = 24


class Unlabelled(Struct, frozen=True):
    """An event to be labelled, and what the model makes of it."""

    text: str
    head: str  # the header, which the model does not read
    body: str
    probabilities: tuple[float, ...]

    @property
    def best(self) -> int:
        return max(range(len(self.probabilities)), key=self.probabilities.__getitem__)


class Keys(Protocol):
    """Where decisions come from."""

    def key(self) -> str:
        """Return the next key; Enter is nothing, and the end of the input is `QUIT`."""

    def line(self) -> str:
        """Return a line that is typed."""


class TerminalKeys:
    """A person's; what was typed before the event was there is dropped, so that no key answers what nobody saw.

    Keys that come at once, pasted or over a slow line, are one key and what follows it: that begins a line, or is
    dropped likewise.
    """

    def __init__(self) -> None:
        self._typed = ""  # behind the last key

    def key(self) -> str:
        try:
            burst = click.getchar()
        except (KeyboardInterrupt, EOFError):  # what was decided is on the disk
            return QUIT
        if burst.startswith("\x1b"):  # an arrow and its like are several characters
            return burst
        pressed, self._typed = burst[:1], burst[1:]
        if pressed in ("", "\x03", "\x04"):  # nobody is there, or Ctrl-C or Ctrl-D with more behind it
            return QUIT
        return ACCEPT if pressed in ("\r", "\n") else pressed

    def line(self) -> str:
        begun, end, _ = self._typed.replace("\r", "\n").partition("\n")
        click.echo(visible(begun), nl=bool(end))  # as the terminal does with the rest
        try:
            return begun if end else f"{begun}{sys.stdin.readline()}".strip()
        except KeyboardInterrupt:
            return ""


class PipedKeys:
    """A script's: one key per line."""

    def __init__(self, lines: IO[bytes]) -> None:
        self._lines = lines

    def key(self) -> str:
        line = self._lines.readline()
        return line.decode("utf-8", "replace").strip() if line else QUIT

    def line(self) -> str:
        return self._lines.readline().decode("utf-8", "replace").strip()


def keys_of(names: Sequence[str]) -> dict[str, int]:
    """Return which key stands for which label.

    By place, 1 to 9 and then letters; and by first letter, where no other label begins with it and it is free. Of very
    many labels the last have no key, and go by name.
    """
    keys = {key: at for at, key in zip(range(len(names)), _PLACES, strict=False)}
    firsts = [name[0].casefold() for name in names]
    alone = {first for first, count in Counter(firsts).items() if count == 1}
    by_letter = {first: at for at, first in enumerate(firsts) if first in alone and first in _LETTERS}
    return by_letter | keys


def named(typed: str, names: Sequence[str]) -> list[int]:
    """Return the labels that a person may mean: that of the name, or those that begin with it, or have it in them."""
    typed = typed.casefold()
    exact = [at for at, name in enumerate(names) if name.casefold() == typed]
    begin = [at for at, name in enumerate(names) if name.casefold().startswith(typed)]
    return exact or begin or [at for at, name in enumerate(names) if typed in name.casefold()]


class Session:
    """Goes through a queue of events, and remembers what was decided, so that it can be undone."""

    def __init__(self, task: Task, file: LabelFile, console: Console, rules: str, now: Callable[[], str]) -> None:
        """Take the task, where labels go, where to show, the task's rules as Markdown, and the clock, as ISO 8601."""
        self._task, self._file, self._console, self._rules, self._now = task, file, console, rules, now
        self._keys = keys_of(task.label_names)
        self._decided: list[bool] = []  # of each event so far: was it labelled, or skipped

    @property
    def labelled(self) -> int:
        return sum(self._decided)

    def run(self, queue: Sequence[Unlabelled], keys: Keys) -> None:
        """Ask until the queue is empty or nobody wants to go on.

        Raises:
            UnavailableError: the disk takes no more.
        """
        say: RenderableType = ""
        while (at := len(self._decided)) < len(queue):
            self._console.clear()  # where it is a terminal
            if say:
                self._console.print(say)
            self._console.print(Rule(f"{self.labelled} labelled, {len(queue) - at} to go", align="left", style="dim"))
            self._console.print(picture(queue[at], self._task, self._keys))
            pressed = keys.key()
            if pressed == QUIT:
                return
            say = self._do(pressed, queue[at], keys)

    def _do(self, pressed: str, event: Unlabelled, keys: Keys) -> RenderableType:
        """Do what a key says, and return what there is to say of it."""
        if pressed == RULES:
            return rules_of(self._task, self._keys, self._rules)
        if pressed == UNDO:
            return self._undo()
        if pressed == SKIP:
            self._decided.append(False)
            return Text("skipped", "dim")
        names = self._task.label_names
        chosen = event.best if pressed == ACCEPT else self._keys.get(pressed)
        if pressed == BY_NAME:
            self._console.print("label: ", end="")
            meant = named(keys.line(), names)
            if len(meant) != 1:
                return Text(f"{len(meant)} labels are like that: type more of the name, or another part of it")
            chosen = meant[0]
        if chosen is None:
            return Text(f"`{visible(pressed)}` is no key here")
        self._file.append(
            Given(
                text=event.text,
                label=names[chosen],
                model_label=names[event.best],
                confidence=round(event.probabilities[event.best], 4),
                labelled_at=self._now(),
            )
        )
        self._decided.append(True)
        return Text(f"{names[chosen]}; u takes it back", "dim")

    def _undo(self) -> Text:
        if not self._decided:
            return Text("nothing to undo: nothing was decided since the start")
        if self._decided[-1] and not self._file.take_back():
            return Text(f"{self._file.path} no longer ends with the line that was written here: undid nothing")
        return Text("took the label back" if self._decided.pop() else "back to what was skipped")


def picture(event: Unlabelled, task: Task, keys: Mapping[str, int]) -> Group:
    """Return an event as a person is to see it: as text and nothing else, whatever a stranger put into it."""
    shown = list(range(len(task.labels)))
    if len(shown) > _MOST_SHOWN:
        shown = sorted(shown, key=lambda at: -event.probabilities[at])[:_MOST_SHOWN]
    labels = Table.grid(padding=(0, 2))
    for at in shown:
        label, probability = task.labels[at], event.probabilities[at]
        labels.add_row(
            Text(_spoken(at, keys), "bold"),
            Text(label.name, "bold" if at == event.best else ""),
            ProgressBar(total=1.0, completed=probability, width=_BAR_COLUMNS),
            f"{probability:4.0%}",
            Text(label.description, "dim"),
        )
    hint = f"Enter {task.labels[event.best].name}   s skip   u undo   / by name   ? rules   q quit"
    return Group(
        *([Text(visible(event.head.rstrip()), "dim", overflow="fold")] if event.head else []),
        Text(visible(event.body), overflow="fold"),
        Padding(labels, (1, 0)),
        Text(hint, "dim"),
    )


def rules_of(task: Task, keys: Mapping[str, int], rules: str) -> Group:
    """Return all labels with their keys, and the rules by which one is chosen."""
    labels = Table.grid(padding=(0, 2))
    for at, label in enumerate(task.labels):
        labels.add_row(Text(_spoken(at, keys), "bold"), label.name, Text(label.description))
    return Group(Text(task.instruction.strip()), Padding(labels, (1, 0)), Markdown(rules))


def _spoken(at: int, keys: Mapping[str, int]) -> str:
    return " ".join(sorted(key for key, label in keys.items() if label == at)) or BY_NAME
