"""What the verdict cache keeps in the state directory: the secret by which audits are drawn, and its snapshot."""

import os
from contextlib import suppress
from pathlib import Path
from secrets import token_bytes

import structlog

from dataflows.cache import snapshot
from dataflows.cache.snapshot import Made, Snapshot
from dataflows.cache.verdict_cache import VerdictCache
from dataflows.running.state_lock import StateLock, is_held
from models.contracts.errors import InputError, UnavailableError

_SECRET_BYTES = 32

log = structlog.get_logger()


def snapshot_path(state_dir: Path) -> Path:
    """Return where the cache is kept while no gateway runs."""
    return state_dir / "cache.snapshot"


def audit_secret(state_dir: Path) -> bytes:
    """Return the gateway's secret, made on first use: the same events are audited whenever they are replayed.

    Raises:
        UnavailableError: the disk does not let it be kept.
    """
    path = _secret_path(state_dir)
    try:
        secret = _secret(state_dir)
        if secret is None:
            secret = token_bytes(_SECRET_BYTES)
            _write(path, secret)
    except OSError as error:
        raise UnavailableError(f"{path}: {error.strerror}; make room on its disk and look at its owner") from error
    return secret


def warm(cache: VerdictCache, state_dir: Path, secret: bytes, made: Made) -> None:
    """Fill a cache with what the last graceful stop kept; one that is of no use is discarded, and the log says why."""
    path = snapshot_path(state_dir)
    try:
        kept = snapshot.decode(path.read_bytes(), secret)
    except FileNotFoundError:
        return
    except (OSError, InputError) as error:
        reason = str(error)
    else:
        reason = "" if kept.made == made else "of another release or task, or of other rules for masking"
        if not reason:
            cache.restore(kept.entries, kept.refusals)
            log.info("cache_restored", entries=len(cache), refused=len(kept.refusals))
            return
    with suppress(OSError):
        _remove(path)
    log.warning("cache_discarded", path=str(path), reason=reason, action="began with an empty cache")


def take_over(cache: VerdictCache, state_dir: Path) -> None:
    """Take away what was kept, right before the cache begins to answer by it: after a crash it would be stale.

    What an audit has removed since would answer again otherwise. A start that fails before leaves it to the next one.
    """
    path = snapshot_path(state_dir)
    try:
        _remove(path)
    except FileNotFoundError:
        return
    except OSError as error:
        cache.forget()
        log.warning("cache_discarded", path=str(path), reason=str(error), action="began with an empty cache")


def keep(cache: VerdictCache, state_dir: Path, secret: bytes, made: Made) -> None:
    """Write the cache for the next start; a disk that does not take it costs that start its warmth, and no event."""
    path = snapshot_path(state_dir)
    try:
        _write(path, snapshot.encode(Snapshot(made, list(cache.listing()), cache.refusals()), secret))
    except OSError as error:
        log.warning("cache_not_kept", path=str(path), reason=str(error.strerror), action="the next start learns anew")
        return
    log.info("cache_kept", entries=len(cache))


def read_kept(state_dir: Path) -> Snapshot | None:
    """Return what the last graceful stop kept, and leave it there; None where there is nothing.

    Raises:
        UnavailableError: it cannot be read.
        InputError: it is not as this gateway wrote it.
    """
    path = snapshot_path(state_dir)
    try:
        secret = _secret(state_dir) or token_bytes(_SECRET_BYTES)  # where it is gone, nothing is genuine
        return snapshot.decode(path.read_bytes(), secret)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UnavailableError(f"{path}: {error.strerror}; ask as the gateway's user, or as root") from error
    except InputError as error:
        raise InputError(f"{path}: {error}; the next start discards it") from error


def forget_kept(state_dir: Path, name: str | None) -> bool | None:
    """Take a template, or without a name all of them, out of what is kept; return whether it was there.

    None where nothing is kept.

    Raises:
        ConfigError: the state directory is not ours.
        UnavailableError: a gateway is about to read or write it, or the disk does not let it be changed.
        InputError: it is not as this gateway wrote it.
    """
    path = snapshot_path(state_dir)
    if not os.path.lexists(path):
        return None
    if is_held(state_dir):
        raise UnavailableError(f"{state_dir}: a gateway that starts or stops has it; ask again in a moment")
    lock = StateLock(state_dir)
    try:
        lock.acquire()  # or a start in between would read what is to be forgotten
        found = None if name is None else read_kept(state_dir)
        if found is None:
            _remove(path)
            return True
        entries = [(key, entry) for key, entry in found.entries if entry.name != name]
        refusals = [(key, refusal) for key, refusal in found.refusals if refusal.name != name]
        if len(entries) + len(refusals) == len(found.entries) + len(found.refusals):
            return False
        _write(path, snapshot.encode(Snapshot(found.made, entries, refusals), audit_secret(state_dir)))
    except OSError as error:
        raise UnavailableError(f"{path}: {error.strerror}; nothing was forgotten") from error
    finally:
        lock.release()
    return True


def _secret_path(state_dir: Path) -> Path:
    return state_dir / "audit-secret"


def _secret(state_dir: Path) -> bytes | None:
    """Return the secret that was made before, if there is one."""
    try:
        secret = _secret_path(state_dir).read_bytes()
    except FileNotFoundError:
        return None
    return secret if len(secret) == _SECRET_BYTES else None


def _write(path: Path, data: bytes) -> None:
    """Write a file that only we may read, whole or not at all."""
    draft = path.with_suffix(".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        with suppress(FileNotFoundError):  # root may change what is the gateway's
            before = path.stat()
            os.fchown(file.fileno(), before.st_uid, before.st_gid)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    _sync(path.parent)


def _remove(path: Path) -> None:
    """Remove a file for good: not even a loss of power brings it back."""
    path.unlink()
    _sync(path.parent)


def _sync(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
