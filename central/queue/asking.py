"""A person at a terminal who answers one item after the other: it is shown, a line is typed, the next one follows."""

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct
from rich.console import Console
from rich.text import Text

from central.queue.item import Item
from central.queue.view import whole
from central.visible import visible

_SKIP, _QUIT = "s", "q"


class Given(Struct, frozen=True):
    """What was typed: a label, perhaps with a note."""

    label: str
    note: str


class Desk(Protocol):
    """What the person works at."""

    def take(self) -> Item | None:
        """Return the next item, which nobody else has; none where none is left."""

    def answer(self, item: Item, given: Given) -> None:
        """Keep an answer; when this returns it is on the disk."""

    def put_back(self, item: Item) -> None:
        """Leave an item to others; it is not taken again."""


def go_through(
    desk: Desk, console: Console, ask: Callable[[str], str | None], clock_ms: Callable[[], int]
) -> tuple[int, bool]:
    """Ask until nothing waits or nobody wants to go on; return how many were answered, and whether all was seen.

    `ask` shows a prompt and returns what was typed; none where the person is gone.
    """
    answered = 0
    while (item := desk.take()) is not None:
        console.rule(style="dim")
        given = ask_about(item, console, ask, clock_ms())
        if isinstance(given, Given):
            desk.answer(item, given)
            answered += 1
            continue
        desk.put_back(item)
        if given == _QUIT:
            return answered, False
    return answered, True


def ask_about(item: Item, console: Console, ask: Callable[[str], str | None], now_ms: int) -> Given | str:
    """Show an item and ask until there is a label, or `s` to skip or `q` to quit."""
    console.print(whole(item, now_ms), soft_wrap=True)
    console.print(Text(f"Enter {item.label}   number or name, perhaps with a note behind it   s skip   q quit", "dim"))
    while True:
        typed = ask("label")
        if typed is None or typed.strip() == _QUIT:
            return _QUIT
        if typed.strip() == _SKIP:
            return _SKIP
        word, _, note = typed.strip().partition(" ")
        meant = [item.label] if not word else _meant(word, item.labels)
        if len(meant) == 1:
            return Given(meant[0], note.strip())
        console.print(Text(f"`{visible(word)}` is none of {', '.join(map(visible, item.labels))}, or several of them"))


def _meant(word: str, labels: Sequence[str]) -> list[str]:
    """Return the labels that a person may mean: by number, by name, or by how the name begins."""
    if word.isdecimal() and 0 < int(word) <= len(labels) and word not in labels:
        return [labels[int(word) - 1]]
    exact = [label for label in labels if label == word]
    return exact or [label for label in labels if label.casefold().startswith(word.casefold())]
