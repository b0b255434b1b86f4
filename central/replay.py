"""Puts dead letters back where their records came from: each once, with its bytes, its key and its headers.

A letter and the mark that it was put back are one transaction, so a replay that is killed loses and doubles nothing;
the next one goes on behind it. A record that becomes a dead letter anew is another letter, and may be put back again.

Where a record belongs:

- Of a source that reads Kafka: into its topic.
- Of the bridge: verdicts of the gateway that sent it, into the topics that the bridge would have chosen. What it
  refused for what it says of itself is refused here, too.
- What a sink refused: verdicts into their topic, for all sinks to be tried again; what of them asks, also to be asked.
- What was cut, since its topic does not take it whole, is not put back at all.
- All else, and events that a model refused of those that gateways asked about, has no way back of its own.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from time import time

from msgspec import Struct, field

from central.bridge_uplink import QUESTIONS, misfit
from central.topics import Names
from dataflows.connectors.kafka import Cluster
from dataflows.connectors.kafka_admin import Admin
from dataflows.connectors.kafka_publisher import Outgoing
from dataflows.connectors.kafka_reader import read_whole
from dataflows.connectors.kafka_transaction import Transactions
from models.contracts.errors import ConfigError, InputError
from models.contracts.event import DeadLetter
from models.contracts.verdict import CENTRAL, Verdict
from models.contracts.wire import decode_dead_letter, decode_verdict, encode

REPLAYED_FROM = "replayed-from"
"""The header that says which dead letter a record was: `topic/partition/offset`, or `file/line`."""

_TOGETHER = 200  # letters of one transaction
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")  # a broker's of MQTT may have other signs
_BRIDGE = "uplink"  # the source of what the bridge refuses
_SINK = "refused-by-sink"  # the reason of what a sink refuses, which is a verdict, and no record of a source


class Replay(Struct, frozen=True, kw_only=True):
    """Which dead letters are put back, and where."""

    cluster: Cluster
    names: Names
    files: tuple[Path, ...] = ()  # of JSON lines, in place of the topic
    reasons: Collection[str] = ()  # any of them; none: every
    sources: Collection[str] = ()  # likewise
    since_ms: int = 0  # letters that were written from then on; of a file, whose records were received
    limit: int | None = None
    to: str = ""  # a topic for all of them
    again: bool = False  # also those that were put back before
    dry_run: bool = False  # only say what would be


class Replayed(Struct, kw_only=True):
    """What became of the dead letters that were looked for."""

    found: int = 0  # by reason, source and time
    before: int = 0  # of them had been put back already
    back: Counter[str] = field(default_factory=Counter)  # records by topic
    recurred: int = 0  # letters put back now that are of records which an earlier replay had put back
    stuck: Counter[str] = field(default_factory=Counter)  # letters by why they were not put back
    unread: int = 0  # records and lines that are no dead letters


class _Found(Struct, frozen=True):
    """A dead letter and where it lies."""

    letter: DeadLetter
    place: str
    written_at_ms: int


class _Mark(Struct, frozen=True, tag="replayed/1"):
    """What a dead letter became that was put back; its key says which, and its time when."""

    id: str
    to: tuple[str, ...]


class _Return(Struct, frozen=True):
    """A dead letter, and the records that put it back."""

    found: _Found
    records: list[Outgoing]


def replay(wanted: Replay) -> Replayed:
    """Put dead letters back, those that are there now; return what became of them.

    Raises:
        ConfigError: a topic or a file that was named is not there.
        UnavailableError: the brokers are away, or another replay was begun. What was put back by then is marked.
    """
    admin = Admin(wanted.cluster)
    if wanted.to and admin.find([wanted.to])[wanted.to] is None:
        raise ConfigError(f"topic {wanted.to}: is not there; nothing was put back")
    done = Replayed()
    transactions = Transactions(wanted.cluster, f"{wanted.names.prefix}.replay")
    marks = _Marks(wanted)
    try:
        if not wanted.dry_run:
            # Before the marks are read: what an earlier replay put back after that would be put back twice.
            transactions.take_up()
        marks.read()
        returns = _returns(wanted, done, marks, _Roads(wanted, admin, int(time() * 1000)))
        while some := list(islice(returns, _TOGETHER)):
            if wanted.dry_run:
                _count(done, some)
            else:
                _put_back(some, transactions, marks, wanted.names, done)
    finally:
        transactions.close()
    return done


def _returns(wanted: Replay, done: Replayed, marks: "_Marks", roads: "_Roads") -> Iterator[_Return]:
    """Yield what is to be put back, no more than the limit."""
    taken: set[str] = set()
    for found in _letters(wanted, done):
        if len(taken) == wanted.limit:
            return
        letter = found.letter
        if (
            (wanted.reasons and letter.reason not in wanted.reasons)
            or (wanted.sources and letter.source not in wanted.sources)
            or found.written_at_ms < wanted.since_ms
        ):
            continue
        done.found += 1
        identity = _identity(letter)
        if identity in taken or marks.has(found):
            done.before += 1
            continue
        if letter.cut_from:
            done.stuck[f"{letter.reason}: only a part of its record is kept"] += 1
            continue
        topics = roads.of(letter)
        if not topics:
            done.stuck[f"{letter.reason}: it has no way back of its own; say whither"] += 1
            continue
        taken.add(identity)
        yield _Return(found, [_record(found, topic) for topic in topics])


class _Roads:
    """Where records belong, by the topics that there are."""

    def __init__(self, wanted: Replay, admin: Admin, now_ms: int) -> None:
        self._names = wanted.names
        self._to = wanted.to
        self._admin = admin
        self._now_ms = now_ms
        self._there: dict[str, bool] = {}

    def of(self, letter: DeadLetter) -> tuple[str, ...]:
        """Return the topics that a letter's record belongs into; none where nobody can know."""
        if self._to:
            return (self._to,)
        if letter.reason == _SINK:
            verdict = _verdict(letter)
            return () if verdict is None else self._of_verdict(verdict)
        if letter.gateway is not None or letter.source == _BRIDGE:
            return self._of_gateway(letter)
        return (letter.topic,) if letter.topic and self._is_there(letter.topic) else ()

    def _of_gateway(self, letter: DeadLetter) -> tuple[str, ...]:
        verdict = _verdict(letter)
        if verdict is None or letter.gateway is None or misfit(verdict, letter.gateway, self._now_ms) is not None:
            return ()
        return self._of_verdict(verdict)

    def _of_verdict(self, verdict: Verdict) -> tuple[str, ...]:
        # Of a question nobody knows which of the two topics refused it. Asked again, it has the same answer's revision.
        asks = verdict.gateway is not None and verdict.revision < CENTRAL and verdict.route in QUESTIONS
        return (self._names.verdicts, self._names.questions) if asks else (self._names.verdicts,)

    def _is_there(self, topic: str) -> bool:
        if topic not in self._there:
            ours = topic in (self._names.dead_letters, self._names.replayed)
            is_name = _TOPIC.fullmatch(topic) is not None
            self._there[topic] = is_name and not ours and self._admin.find([topic])[topic] is not None
        return self._there[topic]


def _letters(wanted: Replay, done: Replayed) -> Iterator[_Found]:
    """Yield every dead letter of the files or the topic."""
    lines = chain.from_iterable(map(_lines, wanted.files)) if wanted.files else _values(wanted)
    for value, place, written_at_ms in lines:
        try:
            letter = decode_dead_letter(value)
        except InputError:
            done.unread += 1
            continue
        yield _Found(letter, place, letter.received_at_ms if written_at_ms is None else written_at_ms)


def _values(wanted: Replay) -> Iterator[tuple[bytes, str, int | None]]:
    topic = wanted.names.dead_letters
    for record in read_whole(wanted.cluster, topic):
        yield record.value or b"", f"{topic}/{record.partition}/{record.offset}", record.written_at_ms


def _lines(path: Path) -> Iterator[tuple[bytes, str, int | None]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):  # another is being written
                    yield line, f"{path}/{number}", None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; look at the path and its owner") from error


class _Marks:
    """When each dead letter was put back, by the brokers' clock."""

    def __init__(self, wanted: Replay) -> None:
        self._wanted = wanted
        self._at_ms: dict[str, int] = {}

    def read(self) -> None:
        """Read what is marked by now; where all is wanted again, nothing counts as marked."""
        if self._wanted.again:
            return
        records = read_whole(self._wanted.cluster, self._wanted.names.replayed)
        self._at_ms = {record.key.decode("utf-8", "replace"): record.written_at_ms for record in records if record.key}

    def has(self, found: _Found) -> bool:
        return self._at_ms.get(_identity(found.letter), -1) >= found.written_at_ms


def _put_back(some: Sequence[_Return], transactions: Transactions, marks: _Marks, names: Names, done: Replayed) -> None:
    refusal = transactions.publish(_marked(some, names))
    if not refusal:
        _count(done, some)
        return
    # Whoever had the name in between may have put back what is still to come.
    transactions.take_up()
    marks.read()
    if len(some) == 1:
        done.stuck[f"{some[0].found.letter.reason}: {refusal}"] += 1
        return
    middle = len(some) // 2
    for half in (some[:middle], some[middle:]):
        left = [each for each in half if not marks.has(each.found)]
        done.before += len(half) - len(left)
        if left:
            _put_back(left, transactions, marks, names, done)


def _marked(some: Iterable[_Return], names: Names) -> list[Outgoing]:
    records = []
    for each in some:
        letter = each.found.letter
        mark = _Mark(letter.id, tuple(record.topic for record in each.records))
        records += [*each.records, Outgoing(names.replayed, _identity(letter).encode(), encode(mark))]
    return records


def _count(done: Replayed, some: Iterable[_Return]) -> None:
    for each in some:
        done.back.update(record.topic for record in each.records)
        done.recurred += any(name == REPLAYED_FROM for name, _ in each.found.letter.headers)


def _record(found: _Found, topic: str) -> Outgoing:
    letter = found.letter
    headers = [header for header in letter.headers if header[0] != REPLAYED_FROM]
    key = letter.key
    if key is None and (verdict := _verdict(letter)) is not None:
        key = verdict.id.encode("utf-8", "surrogatepass")
    return Outgoing(topic, key, letter.raw, [*headers, (REPLAYED_FROM, found.place.encode(errors="replace"))])


def _verdict(letter: DeadLetter) -> Verdict | None:
    try:
        return decode_verdict(letter.raw)
    except InputError:
        return None


def _identity(letter: DeadLetter) -> str:
    """Return what tells a dead letter from every other: what a crash wrote twice is the same."""
    parts = (letter.id.encode("utf-8", "surrogatepass"), letter.reason.encode(), letter.raw)
    return blake2b(b"".join(b"%d:%b" % (len(part), part) for part in parts), digest_size=16).hexdigest()
