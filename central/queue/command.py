"""`python -m central queue`: what waits for a person, claimed and answered at a terminal or by a script."""

import getpass
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from central.queue.asking import Given, ask_about, go_through
from central.queue.desk import Publisher, QueueDesk, QueueSettings, now_ms
from central.queue.item import Item, answer_of
from central.queue.store import VIEWS, Store, View, Wanted
from central.queue.view import ascii_line, fields, json_line, standing, table, whole
from central.visible import visible
from dataflows.running.commands import ListByDefault
from models.contracts.answer import LONGEST_NOTE, Kind
from models.contracts.errors import InputError, UnavailableError

ReadSettings = Callable[[Path | None], QueueSettings]
"""Reads the configuration at a path, or without one where it is usually."""


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # nobody has this number here
        raise click.UsageError("say who you are with `--by` or HEADWATER_ANALYST") from None


def _chosen(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def choose(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return choose


_of_centre = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Of the centre that is meant; without it $HEADWATER_CENTRAL, else ./central.toml.",
)
_by = click.option(
    "--by",
    metavar="NAME",
    envvar="HEADWATER_ANALYST",
    default=_me,
    show_default="$HEADWATER_ANALYST, else the login name",
    help="Who you are.",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
_minutes = click.option(
    "--minutes",
    type=click.IntRange(1, 7 * 24 * 60),
    default=30,
    show_default=True,
    help="Then others may have what you have claimed.",
)
_filters = _chosen(
    click.option("--kind", type=click.Choice(["event", "incident"]), help="Only such."),
    click.option("--label", default="", help="Only what the model calls so."),
    click.option("--source", default="", help="Only of this source."),
    click.option("--gateway", default="", help="Only of this gateway."),
)


def queue_group(read: ReadSettings) -> click.Group:
    """Return the group `queue`; each of its commands reads the configuration when it runs."""

    @click.group("queue", cls=ListByDefault)
    @click.pass_context
    def queue(context: click.Context) -> None:
        """Look at what waits for a person, claim it and answer it; answers become reference labels.

        An answer is a verdict that stands above all of the models': every delivery and the gateway get it. Verdicts of
        the route `review` wait here, and incidents; the gravest label comes first, of equals the oldest.

        \b
        Examples:
          python -m central queue                          the same as `queue list`
          python -m central queue answer                   one after the other, at a terminal
          python -m central queue claim --label critical
          python -m central queue answer 3fa1.17 benign --note 'the scanner of our own'
          python -m central queue export --out answers.jsonl
        """
        context.obj = read

    for command in (list_items, show, claim, release, answer, export, stats):
        queue.add_command(command)
    return queue


@click.command("list")
@_of_centre
@click.option("--state", "view", type=click.Choice(VIEWS), default="open", show_default=True, help="Only such.")
@_filters
@click.option("--claimed-by", default="", metavar="NAME", help="Only what this person has claimed.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@click.option("--offset", type=click.IntRange(min=0), default=0, show_default=True, help="Leave out so many first.")
@_as_json
@click.pass_obj
def list_items(
    read: ReadSettings,
    *,
    path: Path | None,
    view: View,
    kind: Kind | None,
    label: str,
    source: str,
    gateway: str,
    claimed_by: str,
    limit: int,
    offset: int,
    as_json: bool,
) -> None:
    """List items, the gravest and oldest first; `open` are those that wait, claimed or not.

    A terminal gets a table, a pipe one line per item with tabs between its fields, and their names in the first.

    Exits 0 when it has listed, 1 where the database does not answer, 2 where the configuration cannot be used.

    \b
    Examples:
      python -m central queue list --label critical --limit 20
      python -m central queue list --state claimed --claimed-by alice
      python -m central queue --json | jq -r '.id'
    """
    wanted = Wanted(view=view, kind=kind, label=label, source=source, gateway=gateway, claimed_by=claimed_by)
    with _opened(read(path)) as store:
        page = store.page(wanted, now_ms(), limit=limit, offset=offset)
        _print_items(page.items, as_json=as_json)
        if len(page.items) < page.total:
            click.echo(f"headwater: {len(page.items)} of {page.total} items; `--limit`, `--offset`", err=True)
        elif not page.total:
            click.echo(f"headwater: no such item in {store.name}", err=True)


@click.command()
@_of_centre
@_as_json
@click.argument("item_id", metavar="ID")
@click.pass_obj
def show(read: ReadSettings, path: Path | None, item_id: str, *, as_json: bool) -> None:
    """Show all that is known of one item, and the labels it can be answered with.

    Exits 0 when it has, 1 where there is no such item or the database does not answer, 2 where the configuration
    cannot be used.

    \b
    Examples:
      python -m central queue show 3fa1.17
      python -m central queue show 3fa1.17 --json | jq .event.probabilities
    """
    with _opened(read(path)) as store:
        _print_whole(store.show(item_id, now_ms()), as_json=as_json)


@click.command()
@_of_centre
@_by
@_minutes
@_filters
@_as_json
@click.argument("item_id", metavar="[ID]", required=False)
@click.pass_obj
@click.pass_context
def claim(
    context: click.Context,
    read: ReadSettings,
    *,
    path: Path | None,
    item_id: str | None,
    by: str,
    minutes: int,
    kind: Kind | None,
    label: str,
    source: str,
    gateway: str,
    as_json: bool,
) -> None:
    """Claim ID, or without one the gravest and oldest item that nobody has, and show it.

    No two people ever get the same item. Whoever claims again what he has, has it longer.

    Exits 0 when it is yours, 1 where nothing waits, somebody else has it or the database does not answer, 2 where
    the configuration cannot be used.

    \b
    Examples:
      python -m central queue claim
      python -m central queue claim --label critical --source firewalls --minutes 10
      python -m central queue claim 3fa1.17 --by alice --json
    """
    lease_ms = minutes * 60_000
    with _opened(read(path)) as store:
        if item_id is not None:
            item: Item | None = store.claim(item_id, by, now_ms(), lease_ms)
        else:
            wanted = Wanted(kind=kind, label=label, source=source, gateway=gateway)
            item = store.claim_next(wanted, by, now_ms(), lease_ms)
        if item is None:
            click.echo("headwater: nothing waits that nobody has", err=True)
            context.exit(1)
        _print_whole(item, as_json=as_json)


@click.command()
@_of_centre
@_by
@click.argument("item_id", metavar="ID")
@click.pass_obj
def release(read: ReadSettings, path: Path | None, item_id: str, by: str) -> None:
    """Give back an item that you have claimed.

    Exits 0 when others may have it, 1 where it is not yours or the database does not answer, 2 where the configuration
    cannot be used.

    \b
    Example:
      python -m central queue release 3fa1.17
    """
    with _opened(read(path)) as store:
        store.release(item_id, by, now_ms())
        click.echo(f"released {visible(item_id)}")


@click.command()
@_of_centre
@_by
@_minutes
@_filters
@click.option("--note", default="", help="Why, for others.")
@click.option("--correct", is_flag=True, help="Answer anew what is answered.")
@click.argument("item_id", metavar="[ID]", required=False)
@click.argument("given", metavar="[LABEL]", required=False)
@click.pass_obj
def answer(
    read: ReadSettings,
    *,
    path: Path | None,
    item_id: str | None,
    given: str | None,
    by: str,
    minutes: int,
    kind: Kind | None,
    label: str,
    source: str,
    gateway: str,
    note: str,
    correct: bool,
) -> None:
    """Say that ID is LABEL. At a terminal, without LABEL shows it and asks; without ID asks about one after the other.

    The answer is on the disk when this returns, and published to Kafka at once or, where that is away, when it is back.
    What somebody else has claimed cannot be answered, and what is answered only with --correct.

    Exits 0 when it is answered, 1 where there is no such item, somebody else has it or has answered it, or the database
    does not answer, 2 where LABEL is none of the task's or the configuration cannot be used.

    \b
    Examples:
      python -m central queue answer
      python -m central queue answer --label critical --source firewalls
      python -m central queue answer 3fa1.17
      python -m central queue answer 3fa1.17 benign --note 'the scanner of our own'
      python -m central queue answer 3fa1.17 critical --correct
    """
    if given is None and not (sys.stdin is not None and sys.stdin.isatty()):
        raise click.UsageError("standard input is no terminal to ask at: give an ID and a LABEL")
    if item_id is None and (correct or note):
        raise click.UsageError("`--correct` and `--note` are for one item: give an ID")
    if len(note) > LONGEST_NOTE:
        raise click.BadParameter(f"found {len(note)} characters, wanted at most {LONGEST_NOTE}", param_hint="--note")
    settings = read(path)
    with ExitStack() as stack:
        store = stack.enter_context(_opened(settings))
        publisher = stack.enter_context(closing(Publisher(settings, store)))
        console, lease_ms = Console(highlight=False), minutes * 60_000
        if item_id is None:
            wanted = Wanted(kind=kind, label=label, source=source, gateway=gateway)
            desk = QueueDesk(store, publisher, wanted, by, lease_ms)
            answered, all_seen = go_through(desk, console, _ask, now_ms)
            click.echo(f"answered {answered}{'; nothing else waits' if all_seen else ''}")
            return
        if given is None:
            found = store.show(item_id, now_ms())
            if found.state in ("waiting", "claimed"):
                found = store.claim(item_id, by, now_ms(), lease_ms)
            said = ask_about(found, console, _ask, now_ms())
            if not isinstance(said, Given):
                if found.state == "claimed":
                    store.release(item_id, by, now_ms())
                click.echo("changed nothing")
                return
            given, note = said.label, said.note or note
        try:
            publisher.answer(item_id, by, given, note=note, correct=correct)
        except InputError as error:
            raise click.BadParameter(str(error), param_hint="LABEL") from error
        click.echo(f"answered {visible(item_id)}: {given}")


@click.command()
@_of_centre
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Replaced when all is written.  [default: stdout]"
)
@click.option("--source", default="", help="Only of this source.")
@click.option(
    "--release", "of_release", default="", metavar="NAME", help="Only where this release had answered, by name."
)
@click.pass_obj
def export(read: ReadSettings, path: Path | None, out: Path | None, source: str, of_release: str) -> None:
    """Write the answers on events as labelled JSON lines, the oldest first, as `quantize measure --events` reads them.

    What waits for a person is what models are unsure of: good to learn from, and harder to be right about than the
    stream. One file should have one task: where there are several, choose with --release.

    Exits 0 when they are written, 1 where the database does not answer or the disk takes no more, 2 where the
    configuration cannot be used.

    \b
    Examples:
      python -m central queue export --out answers.jsonl
      python -m central queue export --release soc-triage > answers.jsonl
      python -m quantize measure soc-triage --events answers.jsonl --group-by source
    """
    with _opened(read(path)) as store:
        lines = _labelled(store, source, of_release)
        written = _write(lines, out)
    click.echo(f"headwater: wrote {written} answers", err=True)


@click.command()
@_of_centre
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def stats(read: ReadSettings, path: Path | None, *, as_json: bool) -> None:
    """Count what waits, is claimed, answered and superseded, and what Kafka is owed; since when the oldest waits.

    Exits 0 when it has counted, 1 where the database does not answer, 2 where the configuration cannot be used.

    \b
    Examples:
      python -m central queue stats
      python -m central queue stats --json | jq .waiting
    """
    with _opened(read(path)) as store:
        counts = store.counts(now_ms())
        if as_json:
            click.echo(ascii_line(counts))
            return
        for name, value in standing(counts, now_ms()):
            click.echo(f"{name:<16} {value}" if sys.stdout.isatty() else f"{name}\t{value}")


@contextmanager
def _opened(settings: QueueSettings) -> Iterator[Store]:
    store = Store(settings.database)
    try:
        yield store
    finally:
        store.close()


def _labelled(store: Store, source: str, of_release: str) -> Iterator[str]:
    """Yield answers on events, each a line."""
    for item in store.answered(now_ms()):
        found = answer_of(item)
        of_task = not of_release or found.release.rpartition("-")[0] == of_release
        if item.kind == "event" and of_task and (not source or item.source == source):
            yield ascii_line(found)


def _write(lines: Iterable[str], out: Path | None) -> int:
    """Write lines to standard output, or beside a file and then in its place: it is whole, or what it was."""
    written = 0
    if out is None:
        for written, line in enumerate(lines, start=1):  # noqa: B007 - counted
            click.echo(line)
        return written
    unfinished = out.with_name(f"{out.name}.unfinished")
    try:
        with unfinished.open("w", encoding="ascii") as file:
            for written, line in enumerate(lines, start=1):  # noqa: B007 - counted
                file.write(f"{line}\n")
        unfinished.replace(out)
    except OSError as error:
        raise UnavailableError(f"{out}: {error.strerror or error}; left it as it was") from error
    return written


def _ask(prompt: str) -> str | None:
    """Ask at the terminal; none where the person has gone, or wants to."""
    try:
        return str(click.prompt(prompt, default="", show_default=False))
    except click.Abort:
        click.echo()
        return None


def _print_items(items: Sequence[Item], *, as_json: bool) -> None:
    if as_json:
        click.echo("".join(f"{json_line(item)}\n" for item in items), nl=False)
        return
    _take_any_character()
    console = Console(highlight=False)
    if console.is_terminal:
        if items:
            console.print(table(items, now_ms()))
    else:
        click.echo("".join(f"{line}\n" for line in fields(items, now_ms())), nl=False)


def _print_whole(item: Item, *, as_json: bool) -> None:
    if as_json:
        click.echo(json_line(item))
        return
    _take_any_character()
    Console(highlight=False).print(whole(item, now_ms()), soft_wrap=True)


def _take_any_character() -> None:
    """Have what the terminal's encoding lacks shown as question marks."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
