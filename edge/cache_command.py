"""`python -m edge cache`: what the verdict cache answers, why it does, and how to make it forget.

The running gateway is asked; where none runs, what the last one kept is read or changed.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from time import time

import click
from rich.console import Console

from dataflows.cache.entry import Entry, Refusal
from dataflows.cache.snapshot import Made, Snapshot
from dataflows.running.cache_files import forget_kept, read_kept, snapshot_path
from dataflows.running.policy import policy_in_force
from edge.cache_answers import (
    Explain,
    Explanation,
    Forget,
    Forgotten,
    List,
    Listing,
    Template,
    Terms,
    explanation,
    listing,
)
from edge.cache_view import answer, fields, json_line, masks, shown, table
from edge.config import Config, read_config
from edge.control import ask, socket_path
from edge.view import printable
from models.contracts.errors import ConfigError, InputError, UnavailableError
from models.contracts.event import DeadLetter, Event
from models.contracts.release import Release
from models.masking import LONGEST_TEXT, Masking

_MOST_EVENT_BYTES = 1 << 20


def show_templates(path: Path, asked: List, *, as_json: bool) -> None:
    """Print templates: a table on a terminal, lines with tabs elsewhere, or JSON lines.

    Raises:
        ConfigError: the configuration, the policy or the release cannot be used.
        UnavailableError: there is neither a gateway that answers nor a cache that was kept.
        InputError: what was kept is not as the gateway wrote it.
    """
    config = read_config(path)
    found = ask(_state_dir(config), asked, Listing) or _listing_of_kept(config, asked)
    _print_templates(found.templates, as_json=as_json)
    if not found.total:
        click.echo("headwater: the cache knows no template", err=True)
    if len(found.templates) < found.total:
        more = "`--limit` shows more" if len(found.templates) == asked.limit else "one answer holds no more text"
        click.echo(f"headwater: {len(found.templates)} of {found.total} templates; {more}", err=True)


def explain_event(path: Path, raw: bytes, source: str) -> None:
    """Print what is masked of an event, and which entry answers it or why none does.

    Raises:
        ConfigError: as for `show_templates`, or there is no such source.
        UnavailableError: likewise.
        InputError: likewise.
    """
    config = read_config(path)
    event = _decoded(config, raw, source)
    _take_any_character()
    if isinstance(event, DeadLetter):
        _say("answer", f"none: it becomes a dead letter, `{event.reason}`: {printable(event.detail)}")
        return
    _say("event", printable(event.body))
    if event.truncated:
        _say("answer", "none: it is longer than `max_event_bytes`, and what was cut is never cached")
        return
    asked = Explain(event.body[: LONGEST_TEXT + 1])  # a longer one has no key, however long it is
    found = ask(_state_dir(config), asked, Explanation) or _explanation_of_kept(config, asked)
    if found.masked is not None:
        _say("template", shown(found.masked.key))
        masked = masks(found.masked, event.body)
        width = max((len(kind) for kind, _ in masked), default=0)
        _say("masked", *(f"{kind:{width}}  {printable(word)}" for kind, word in masked))
    _say("answer", *answer(found, event.body, time()))


def forget(path: Path, name: str | None) -> None:
    """Have a template forgotten, or without a name all of them.

    Raises:
        ConfigError: the configuration or the state directory cannot be used.
        UnavailableError: there is no such template, or neither a gateway that answers nor a cache that was kept.
        InputError: what was kept is not as the gateway wrote it.
    """
    state_dir = _state_dir(read_config(path))
    done = ask(state_dir, Forget(name), Forgotten)
    known = forget_kept(state_dir, name) if done is None else done.known
    if known is None:
        raise _nothing(state_dir)
    if not known:
        raise UnavailableError(f"template {printable(name or '')}: there is none; `python -m edge cache` lists them")
    when = "of what was kept for the next start" if done is None else "as soon as the gateway takes its next events"
    what = "all templates" if name is None else name
    click.echo(f"forgot {what} of the gateway in {state_dir.absolute()}, {when}")


def read_event(argument: str) -> bytes:
    """Return an event as it was given or, for `-`, as standard input has it, without the end of its line.

    Raises:
        InputError: it is longer than any.
    """
    raw = sys.stdin.buffer.read(_MOST_EVENT_BYTES + 1) if argument == "-" else os.fsencode(argument)
    if len(raw) > _MOST_EVENT_BYTES:
        raise InputError(f"event: found more than {_MOST_EVENT_BYTES} bytes, wanted one event")
    return raw.removesuffix(b"\n").removesuffix(b"\r")


def _state_dir(config: Config) -> Path:
    return Path(config.gateway.state_dir)


def _nothing(state_dir: Path) -> UnavailableError:
    return UnavailableError(
        f"no gateway answers at {socket_path(state_dir.absolute())}, and none has kept a cache there: start it, or "
        "name its configuration with `--config` and ask from where it runs"
    )


def _decoded(config: Config, raw: bytes, source: str) -> Event | DeadLetter:
    """Read a record as the flow does."""
    # They load bytewax, which nothing else here needs.
    from dataflows.connectors.batch import Batch  # noqa: PLC0415
    from dataflows.operators.decode import PLAIN, decode_records  # noqa: PLC0415
    from edge.readings import readings  # noqa: PLC0415

    by_name = readings(config)
    if source and source not in by_name:
        raise ConfigError(f"source `{source}`: found none of that name, wanted one of {sorted(by_name)}")
    decoded = decode_records(Batch(source or "event", int(time() * 1e3), [raw], ["event"]), by_name.get(source, PLAIN))
    return decoded.events[0] if decoded.events else decoded.letters[0]


def _listing_of_kept(config: Config, asked: List) -> Listing:
    kept = _kept(config)
    return listing(asked, dict(kept.entries), dict(kept.refusals), _terms(config, kept.made))


def _explanation_of_kept(config: Config, asked: Explain) -> Explanation:
    kept = _kept(config)
    masked = Masking(kept.made.masks, kept.made.known_addresses).mask(asked.body)
    known: Mapping[str, Entry | Refusal] = {**dict(kept.entries), **dict(kept.refusals)}
    found = known.get(masked.key) if masked is not None else None
    return explanation(asked.body, masked, found, _terms(config, kept.made))


def _kept(config: Config) -> Snapshot:
    kept = read_kept(_state_dir(config))
    if kept is None:
        raise _nothing(_state_dir(config))
    return kept


def _terms(config: Config, made: Made) -> Terms:
    """Return what a start would work by, and say what it would do with what was kept.

    Raises:
        UnavailableError: the gateway has another release by now, or another task.
    """
    release = _release(config, made.release_sha256)
    policy = policy_in_force(config.policy, config.policy_file, release)
    now = Made.under(made.release_sha256, release, config.model.context_tokens, policy.cache)
    if made.contract_sha256 != now.contract_sha256:  # the entries' labels are others than those that we would name
        raise UnavailableError(
            f"{snapshot_path(_state_dir(config))}: kept under another task or prompt than {release.title} has now; the "
            "next start discards it"
        )
    fate = "the next start takes it over"
    if made != now:
        fate = "the next start discards it, because other words are masked now, or `context_tokens` is another"
    click.echo(f"headwater: no gateway runs; this is the cache that the last one kept, and {fate}", err=True)
    return Terms(release, policy, time())


def _release(config: Config, sha256: str) -> Release:
    """Return the release that a cache was kept under.

    Raises:
        UnavailableError: the gateway has another one by now.
    """
    # They load a runtime, which a running gateway spares us.
    from models.llama import Model  # noqa: PLC0415
    from models.release_file import digest_of, read_release, release_path  # noqa: PLC0415

    path, task = release_path(config.model.release), config.model.task
    if digest_of(path) != sha256:
        raise UnavailableError(
            f"{snapshot_path(_state_dir(config))}: kept under another release than {path}; the next start discards it"
        )
    with Model(path, vocabulary_only=not task) as model:  # what an instruct model is, only its weights tell
        return read_release(model, task)


def _take_any_character() -> None:
    """Have what the terminal's encoding lacks shown as question marks."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _print_templates(templates: Sequence[Template], *, as_json: bool) -> None:
    if as_json:
        click.echo(b"".join(map(json_line, templates)), nl=False)
        return
    _take_any_character()
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(table(templates, time()))
    else:
        click.echo("".join("\t".join(line) + "\n" for line in fields(templates, time())), nl=False)


def _say(heading: str, *lines: str) -> None:
    for number, line in enumerate(lines or ("nothing",)):
        click.echo(f"{'' if number else heading:9} {line}")
