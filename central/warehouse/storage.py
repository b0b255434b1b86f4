"""Where the warehouse's files lie, a folder or a bucket of S3: each is there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
from msgspec import Struct
from pyarrow.fs import (
    AwsStandardS3RetryStrategy,
    FileSelector,
    FileSystem,
    FileType,
    LocalFileSystem,
    S3FileSystem,
)

from models.contracts.errors import ConfigError, UnavailableError

_CONNECT_S = 5.0
_REQUEST_S = 20.0  # without a byte
_ATTEMPTS = 3
_UNFINISHED = ".unfinished-"  # what a name begins with until its file is whole
_WANTED = "wanted a folder or s3://bucket/prefix, perhaps with ?endpoint=https://host:port&region=name"


class Found(Struct, frozen=True):
    """A file that is there; its name is the path below the root."""

    name: str
    bytes: int
    changed_at_s: float  # by the clock of where it lies


class Storage:
    """Files under one root; a name is a path with `/`."""

    def __init__(self, url: str, filesystem: FileSystem, root: str) -> None:
        self.url = url
        self.filesystem = filesystem
        self._root = root

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, LocalFileSystem)

    def path(self, name: str) -> str:
        """Return what the file system calls a file."""
        return f"{self._root}/{name}"

    def files(self, folder: str) -> list[Found]:
        """Return the files below a folder, by name; none where there is no such folder.

        Raises:
            UnavailableError: they cannot be listed.
        """
        selector = FileSelector(self.path(folder), allow_not_found=True, recursive=True)
        with self.telling("cannot be listed"):
            found = self.filesystem.get_file_info(selector)
        return sorted(
            (
                Found(each.path.removeprefix(f"{self._root}/"), each.size, (each.mtime_ns or 0) / 1e9)
                for each in found
                if each.type == FileType.File
            ),
            key=lambda file: file.name,
        )

    def put(self, name: str, content: pa.Buffer) -> None:
        """Return when a file of this name is durable, in place of another perhaps.

        Raises:
            UnavailableError: it is not, as far as we know.
        """
        with self.telling(f"{name} cannot be written"):
            if self.is_local:
                _put_file(Path(self.path(name)), content)
                return
            with self.filesystem.open_output_stream(self.path(name)) as stream:
                stream.write(content)  # in one piece: whatever was written when a stream is closed becomes the object

    def delete(self, name: str) -> None:
        """Delete a file; one that is gone already is no trouble.

        Raises:
            UnavailableError: it cannot be deleted.
        """
        with self.telling(f"{name} cannot be deleted"):
            try:
                self.filesystem.delete_file(self.path(name))
            except FileNotFoundError:
                return

    @contextmanager
    def telling(self, what: str) -> Iterator[None]:
        """Say of this warehouse what its file system says, as an outage."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise UnavailableError(f"warehouse {self.url}: {what}: {_reason(error)}") from error


def open_storage(url: str, *, request_s: float = _REQUEST_S, attempts: int = _ATTEMPTS) -> Storage:
    """Return where `url` says the warehouse is; nothing is asked of it yet.

    Who we are on S3 is said as to every program: by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role.

    Args:
        url: a path, or `s3://bucket/prefix`.
        request_s: how long a request to S3 goes without a byte, until it has failed. What is sent counts as soon as it
            is in the kernel's buffers, so that a server that hangs is noticed later than that, within half a minute.
        attempts: how often a request is made until it has failed.

    Raises:
        ConfigError: it is neither a folder nor a bucket.
    """
    if "://" not in url:
        root = str(Path(url).absolute())
        return Storage(root, LocalFileSystem(), root)
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.hostname or "@" in parts.netloc:
        found = "one with a password in it" if "@" in parts.netloc else f"`{url}`"
        raise ConfigError(f"warehouse: found {found}, {_WANTED}")
    asked = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    endpoint = urlsplit(asked.pop("endpoint", ""))
    region = asked.pop("region", None)
    if asked or endpoint.scheme not in ("", "http", "https") or bool(endpoint.scheme) != bool(endpoint.netloc):
        raise ConfigError(f"warehouse: found `{url}`, {_WANTED}")
    filesystem = S3FileSystem(
        region=region,
        scheme=endpoint.scheme or None,
        endpoint_override=endpoint.netloc or None,
        connect_timeout=_CONNECT_S,
        request_timeout=request_s,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=attempts),
        allow_delayed_open=True,  # a small object is one request
    )
    return Storage(url, filesystem, f"{parts.netloc}{parts.path}".rstrip("/"))


def is_unfinished(name: str) -> bool:
    """Return whether a crash left this behind."""
    return name.rpartition("/")[2].startswith(_UNFINISHED)


def _put_file(path: Path, content: pa.Buffer) -> None:
    new = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{_UNFINISHED}{os.getpid()}-{path.name}")
    try:
        with open(unfinished, "wb", opener=_private) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    for folder in (path.parent, *(each.parent for each in new)):
        _sync(folder)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o640)  # events are not everybody's to read


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
