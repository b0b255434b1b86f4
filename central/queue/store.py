"""The queue's operations, each one transaction: put, page, show, claim, release, answer; and what Kafka is owed.

Time is a value, `now_ms`, in every operation. Claims are leases by the clocks of those who claim, which may differ by
seconds; a lease is minutes.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, Row, case, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.elements import ColumnElement

from central.queue.database import POSTGRES, Database, database_url
from central.queue.item import Asking, Item, Settling, State, answer_of
from central.queue.schema import ITEMS, NONE, TO_PUBLISH
from models.contracts import wire
from models.contracts.answer import Kind
from models.contracts.errors import InputError, UnavailableError

View = Literal["open", "waiting", "claimed", "answered", "superseded", "all"]
VIEWS: Final[tuple[View, ...]] = ("open", "waiting", "claimed", "answered", "superseded", "all")
"""`open` is what waits, claimed or not."""

_GRAVEST_AND_OLDEST_FIRST = (ITEMS.c.gravity.desc(), ITEMS.c.waiting_since_ms, ITEMS.c.id)
_PAGE = 500


class Wanted(Struct, frozen=True, kw_only=True):
    """Which items are meant; what is empty means any."""

    view: View = "open"
    kind: Kind | None = None
    label: str = ""
    source: str = ""
    gateway: str = ""
    claimed_by: str = ""


class Page(Struct, frozen=True):
    """Some items of those that are wanted, and how many these are."""

    items: list[Item]
    total: int


class Counts(Struct, frozen=True, kw_only=True):
    """How the queue stands."""

    waiting: int = 0
    claimed: int = 0
    answered: int = 0
    superseded: int = 0
    unpublished: int = 0  # answers that Kafka is owed
    unpublishable: int = 0  # answers that Kafka will never take
    oldest_ms: int | None = None  # since when the oldest open item waits
    open_by_label: dict[str, int] = {}


class Store:
    """One queue. Safe for several threads and processes; nothing is held between two calls."""

    def __init__(self, url: str) -> None:
        """Open the database and bring its table to what this version wants.

        Raises:
            ConfigError: the URL is of no database that we know.
            UnavailableError: the database is away, or of a later version.
        """
        self._database = Database(database_url(url))
        self._insert: Any = postgresql.insert if self._database.kind == POSTGRES else sqlite.insert

    @property
    def name(self) -> str:
        """Where the queue is, without a password."""
        return self._database.name

    def close(self) -> None:
        self._database.close()

    def put(self, found: Sequence[Asking | Settling], now_ms: int) -> None:
        """Take what was delivered: in any order, any number of times, to the same end.

        Raises:
            UnavailableError: the database is away; nothing was taken.
        """
        # By id, so that two who deliver at once wait for one another and not in a circle.
        rows = [_row(each, now_ms) for each in sorted(found, key=lambda each: each.id)]
        asking = [row for row in rows if row["record"] is not None]
        settling = [row for row in rows if row["record"] is None]
        with self._database.writing() as connection:
            if asking:
                connection.execute(self._raise_asking(), asking)
            if settling:
                connection.execute(self._raise_settled(), settling)

    def page(self, wanted: Wanted, now_ms: int, *, limit: int = 50, offset: int = 0) -> Page:
        """Return a page of items, the gravest and oldest first.

        Raises:
            UnavailableError: the database is away.
        """
        meant = _meant(wanted, now_ms)
        page = select(ITEMS).where(*meant).order_by(*_GRAVEST_AND_OLDEST_FIRST).limit(limit).offset(offset)
        with self._database.reading() as connection:
            items = [_item(row, now_ms) for row in connection.execute(page)]
            total = connection.scalar(select(func.count()).select_from(ITEMS).where(*meant))
        return Page(items, total or 0)

    def show(self, item_id: str, now_ms: int) -> Item:
        """Return one item.

        Raises:
            UnavailableError: there is none, or the database is away.
        """
        with self._database.reading() as connection:
            return self._find(connection, item_id, now_ms)

    def claim(self, item_id: str, by: str, now_ms: int, lease_ms: int) -> Item:
        """Have an item for oneself for a while; whoever has it already has it longer.

        Raises:
            UnavailableError: there is none, somebody else has it, it does not wait, or the database is away.
        """
        with self._database.writing() as connection:
            found = self._find(connection, item_id, now_ms, lock=True)
            if found.state not in ("waiting", "claimed"):
                raise UnavailableError(f"{item_id}: is {found.state}; nothing is left to claim")
            _check_holder(found, by, now_ms)
            lease = {"claimed_by": by, "claimed_until_ms": now_ms + lease_ms}
            connection.execute(update(ITEMS).where(ITEMS.c.id == item_id).values(lease))
            return replace(found, state="claimed", **lease)

    def claim_next(
        self, wanted: Wanted, by: str, now_ms: int, lease_ms: int, *, besides: Collection[str] = ()
    ) -> Item | None:
        """Claim the gravest and oldest item that nobody has; none where none is left. No two ever get the same.

        Raises:
            UnavailableError: the database is away.
        """
        meant = (*_meant(replace(wanted, view="waiting"), now_ms), ITEMS.c.id.not_in(besides))
        first = select(ITEMS.c.id).where(*meant).order_by(*_GRAVEST_AND_OLDEST_FIRST).limit(1)
        claim = (
            update(ITEMS)
            # SQLite has no locks of rows, and needs none: one writes at a time.
            .where(ITEMS.c.id == first.with_for_update(skip_locked=True).scalar_subquery())
            .values(claimed_by=by, claimed_until_ms=now_ms + lease_ms)
            .returning(ITEMS)
        )
        with self._database.writing() as connection:
            row = connection.execute(claim).one_or_none()
            return None if row is None else _item(row, now_ms)

    def release(self, item_id: str, by: str, now_ms: int) -> Item:
        """Give back what one has claimed.

        Raises:
            UnavailableError: there is none, one has not claimed it, or the database is away.
        """
        with self._database.writing() as connection:
            found = self._find(connection, item_id, now_ms, lock=True)
            _check_holder(found, by, now_ms)
            if found.state != "claimed":
                raise UnavailableError(f"{item_id}: is {found.state}, and claimed by nobody; nothing to release")
            free = {"claimed_by": None, "claimed_until_ms": None}
            connection.execute(update(ITEMS).where(ITEMS.c.id == item_id).values(free))
            return replace(found, state="waiting", **free)

    def answer(self, item_id: str, by: str, label: str, now_ms: int, *, note: str = "", correct: bool = False) -> Item:
        """Say what an item is, for good; with `correct` say it anew. On return it is on the disk, and Kafka is owed it.

        What was superseded can be answered, too: a person stands above any model.

        Raises:
            InputError: the label is none of the task's, or the note is too long.
            UnavailableError: there is none, somebody else has it, it is answered, or the database is away.
        """
        with self._database.writing() as connection:
            found = self._find(connection, item_id, now_ms, lock=True)
            if label not in found.labels:
                raise InputError(f"{item_id}: found label `{label}`, wanted one of {', '.join(found.labels)}")
            if found.state == "answered" and not correct:
                raise UnavailableError(
                    f"{item_id}: {found.answered_by} answered `{found.answer}`; `--correct` answers anew"
                )
            _check_holder(found, by, now_ms)
            given = {
                "state": "answered",
                "answer": label,
                "answered_by": by,
                "answered_at_ms": now_ms,
                "note": note,
                "answer_revision": found.next_revision,
                "published_at_ms": None,
                "unpublishable": None,
            }
            answered = replace(found, **given)
            wire.decode_answer(
                wire.encode(answer_of(answered))
            )  # what is wrong with it is found while it can be mended
            connection.execute(update(ITEMS).where(ITEMS.c.id == item_id).values(given))
            return answered

    def counts(self, now_ms: int) -> Counts:
        """Count what there is.

        Raises:
            UnavailableError: the database is away.
        """
        standing = case((_is_held(now_ms), "claimed"), else_=ITEMS.c.state).label("standing")
        by_state = select(standing, func.count()).where(ITEMS.c.record.is_not(None)).group_by(standing)
        is_open = ITEMS.c.state == "waiting"
        by_label = select(ITEMS.c.label, func.count()).where(is_open).group_by(ITEMS.c.label).order_by(ITEMS.c.label)
        with self._database.reading() as connection:
            return Counts(
                **dict(connection.execute(by_state).all()),
                unpublished=connection.scalar(select(func.count()).select_from(ITEMS).where(TO_PUBLISH)) or 0,
                unpublishable=connection.scalar(select(func.count(ITEMS.c.unpublishable))) or 0,
                oldest_ms=connection.scalar(select(func.min(ITEMS.c.waiting_since_ms)).where(is_open)),
                open_by_label=dict(connection.execute(by_label).all()),
            )

    def answered(self, now_ms: int) -> Iterator[Item]:
        """Yield every answered item, the oldest answer first.

        Raises:
            UnavailableError: the database is away.
        """
        wanted = select(ITEMS).where(ITEMS.c.state == "answered").order_by(ITEMS.c.answered_at_ms, ITEMS.c.id)
        with self._database.reading() as connection:
            for row in connection.execution_options(yield_per=_PAGE).execute(wanted):
                yield _item(row, now_ms)

    def unpublished(self, now_ms: int, limit: int = _PAGE) -> list[Item]:
        """Return answered items that Kafka is owed, the oldest first.

        Raises:
            UnavailableError: the database is away.
        """
        owed = select(ITEMS).where(TO_PUBLISH).order_by(ITEMS.c.answered_at_ms, ITEMS.c.id).limit(limit)
        with self._database.reading() as connection:
            return [_item(row, now_ms) for row in connection.execute(owed)]

    def published(self, items: Sequence[Item], refused: Mapping[str, str], now_ms: int) -> None:
        """Remember that Kafka has these answers; `refused` are those that it will never take, by id, and why.

        One that was corrected meanwhile is owed again: of the two the older may have come last.

        Raises:
            UnavailableError: the database is away; they are published again.
        """
        with self._database.writing() as connection:
            for item in sorted(items, key=lambda item: item.id):
                row = update(ITEMS).where(ITEMS.c.id == item.id)
                why = refused.get(item.id)
                told = row.where(ITEMS.c.answer_revision == item.answer_revision).values(
                    published_at_ms=now_ms if why is None else None, unpublishable=why
                )
                if not connection.execute(told).rowcount:
                    connection.execute(row.values(published_at_ms=None))

    def forget(self, before_ms: int, most: int) -> int:
        """Remove at most so many rows that were superseded and have not changed since then; return how many.

        Raises:
            UnavailableError: the database is away.
        """
        old = (ITEMS.c.state == "superseded") & (ITEMS.c.changed_at_ms < before_ms)
        oldest = select(ITEMS.c.id).where(old).order_by(ITEMS.c.changed_at_ms).limit(most)
        with self._database.writing() as connection:
            # Once more, for one that waits again by now.
            return connection.execute(delete(ITEMS).where(ITEMS.c.id.in_(oldest), old)).rowcount

    def _find(self, connection: Connection, item_id: str, now_ms: int, *, lock: bool = False) -> Item:
        wanted = select(ITEMS).where(ITEMS.c.id == item_id, ITEMS.c.record.is_not(None))
        row = connection.execute(wanted.with_for_update() if lock else wanted).one_or_none()
        if row is None:
            raise UnavailableError(f"{item_id}: there is no such item; `queue list --state all` names those there are")
        return _item(row, now_ms)

    def _raise_asking(self) -> Any:
        insert = self._insert(ITEMS)
        new = insert.excluded
        waits = new.revision >= ITEMS.c.settled
        described = ("revision", "record", "label", "confidence", "source", "gateway", "gravity", "changed_at_ms")
        return insert.on_conflict_do_update(
            index_elements=[ITEMS.c.id],
            where=(ITEMS.c.state != "answered") & (new.revision > ITEMS.c.revision),
            set_={
                **{name: new[name] for name in described},
                "state": case((waits, "waiting"), else_="superseded"),
                # An item that waits all the while keeps its place.
                "waiting_since_ms": case(
                    (ITEMS.c.state == "waiting", ITEMS.c.waiting_since_ms), else_=new.waiting_since_ms
                ),
            },
        )

    def _raise_settled(self) -> Any:
        insert = self._insert(ITEMS)
        new = insert.excluded
        return insert.on_conflict_do_update(
            index_elements=[ITEMS.c.id],
            where=(ITEMS.c.state != "answered") & (new.settled > ITEMS.c.settled),
            set_={
                "settled": new.settled,
                "changed_at_ms": new.changed_at_ms,
                "state": case((new.settled > ITEMS.c.revision, "superseded"), else_=ITEMS.c.state),
            },
        )


def _row(found: Asking | Settling, now_ms: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": found.id,
        "kind": found.kind,
        "revision": NONE,
        "settled": NONE,
        "state": "waiting",
        "record": None,
        "label": None,
        "confidence": None,
        "source": None,
        "gateway": None,
        "gravity": 0,
        "waiting_since_ms": now_ms,
        "changed_at_ms": now_ms,
    }
    if isinstance(found, Settling):
        return {**row, "settled": found.revision, "state": "superseded"}
    described = ("revision", "record", "label", "confidence", "source", "gateway", "gravity")
    return {**row, **{name: getattr(found, name) for name in described}}


def _item(row: Row[Any], now_ms: int) -> Item:
    columns = dict(row._mapping)  # noqa: SLF001 - its public name, so that it is no column's
    del columns["changed_at_ms"]
    state: State = columns.pop("state")
    held = state == "waiting" and (columns["claimed_until_ms"] or 0) > now_ms
    return Item(**columns, state="claimed" if held else state)


def _is_held(now_ms: int) -> ColumnElement[bool]:
    return (ITEMS.c.state == "waiting") & (func.coalesce(ITEMS.c.claimed_until_ms, 0) > now_ms)


def _meant(wanted: Wanted, now_ms: int) -> tuple[ColumnElement[bool], ...]:
    """Return what is true of the items that are wanted."""
    state: ColumnElement[bool]
    match wanted.view:
        case "all":
            state = ITEMS.c.record.is_not(None)
        case "open":
            state = ITEMS.c.state == "waiting"
        case "waiting":
            free = or_(ITEMS.c.claimed_until_ms.is_(None), ITEMS.c.claimed_until_ms <= now_ms)
            state = (ITEMS.c.state == "waiting") & free
        case "claimed":
            state = _is_held(now_ms)
        case named:
            state = (ITEMS.c.state == named) & ITEMS.c.record.is_not(None)
    exact = {
        ITEMS.c.kind: wanted.kind,
        ITEMS.c.label: wanted.label,
        ITEMS.c.source: wanted.source,
        ITEMS.c.gateway: wanted.gateway,
        ITEMS.c.claimed_by: wanted.claimed_by,
    }
    return (state, *(column == value for column, value in exact.items() if value))


def _check_holder(found: Item, by: str, now_ms: int) -> None:
    if found.state == "claimed" and found.claimed_by != by:
        minutes = -(((found.claimed_until_ms or 0) - now_ms) // -60_000)
        raise UnavailableError(f"{found.id}: {found.claimed_by} has it, for {minutes} min more; changed nothing")
