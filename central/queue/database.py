"""The database behind the queue, by URL: a SQLite file, or PostgreSQL. Its errors become ours here."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from dataflows.connectors.private_file import make_private
from models.contracts.errors import ConfigError, UnavailableError

SQLITE, POSTGRES = "sqlite", "postgresql"

_BUSY_S = 5.0  # for another process that writes
_CONNECT_S = 5
_STATEMENT_S = 30
_SILENCE_MS = 15_000  # of a server that has gone without a word
_LOCK = 0x6865_6164_7761_7465  # PostgreSQL's locks have numbers; nobody else's is this one
_ON_CONNECT = {
    SQLITE: ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA journal_size_limit=4194304"),
    POSTGRES: (
        f"SET statement_timeout = '{_STATEMENT_S}s'",
        f"SET lock_timeout = '{_BUSY_S:g}s'",
        # Where a server is set to acknowledge before its disk has it, it may not do so with us.
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
    ),
}


def database_url(given: str) -> URL:
    """Read a URL, without a look at what is there.

    Raises:
        ConfigError: it is none, or of a database that we do not know.
    """
    wanted = "wanted `sqlite:///PATH` or `postgresql+psycopg://USER@HOST/DATABASE`"
    try:
        url = make_url(given)
    except ArgumentError:
        raise ConfigError(f"database: found no URL, {wanted}") from None  # it may hold a password, and is not shown
    if url.drivername in (POSTGRES, f"{POSTGRES}+psycopg"):
        return url.set(drivername=f"{POSTGRES}+psycopg")
    if url.drivername == SQLITE and url.database not in (None, "", ":memory:"):
        return url
    raise ConfigError(f"database: found `{_shown(url)}`, {wanted}")


def _shown(url: URL) -> str:
    """Return a URL without what may be secret: a password, and the query, which may hold one."""
    return url.set(query={}).render_as_string(hide_password=True)


class Database:
    """Connections to one database, whose tables are as this version wants them."""

    def __init__(self, url: URL) -> None:
        """Open it, make it where it is a file, and run the migrations that it lacks.

        Raises:
            UnavailableError: it cannot be opened, or its tables are of a later version.
        """
        self.kind = url.get_backend_name()
        self.name = str(url.database) if self.kind == SQLITE else _shown(url)
        arguments: dict[str, Any] = {"timeout": _BUSY_S}
        if self.kind == POSTGRES:
            arguments = {"connect_timeout": _CONNECT_S, "tcp_user_timeout": _SILENCE_MS}
        self._engine = create_engine(url, connect_args=arguments, pool_pre_ping=self.kind == POSTGRES)
        event.listen(self._engine, "connect", self._on_connect)
        if self.kind == SQLITE:
            event.listen(self._engine, "begin", _begin)
        self._writing = self._engine.execution_options(writes=True)
        try:
            if self.kind == SQLITE:
                path = Path(str(url.database))
                path.parent.mkdir(parents=True, exist_ok=True)
                make_private(path)
            self._migrate()
        except OSError as error:
            self.close()
            raise UnavailableError(f"{self.name}: {error.strerror or error}; the queue cannot be kept there") from error
        except UnavailableError:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend a connection to look with, that keeps nobody from writing.

        Raises:
            UnavailableError: the database is away.
        """
        with self._translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Lend a connection for one transaction; what is changed is on the disk when this returns, or is not at all.

        Raises:
            UnavailableError: the database is away, or takes no more; do the same later.
        """
        with self._translated(), self._writing.begin() as connection:
            yield connection

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    def _migrate(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.writing() as connection:
            if self.kind == POSTGRES:
                encoding = connection.scalar(text("SHOW server_encoding"))
                if encoding != "UTF8":
                    raise UnavailableError(f"{self.name}: found encoding {encoding}, wanted a database with UTF8")
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise UnavailableError(
                    f"{self.name}: its tables are of a later version: {error}; changed nothing: update this one"
                ) from error

    def _on_connect(self, connection: Any, _record: Any) -> None:
        if self.kind == SQLITE:
            connection.isolation_level = None  # or Python's adapter begins transactions where it thinks best
        else:
            connection.autocommit = True
        cursor = connection.cursor()
        for statement in _ON_CONNECT[self.kind]:
            cursor.execute(statement)
        cursor.close()
        if self.kind == POSTGRES:
            connection.autocommit = False

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
            raise UnavailableError(f"{self.name}: {reason}; what is to be written waits") from error


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes later would fail where another has written meanwhile.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
