"""What gateway and centre are configured with alike: strict sections of a TOML file, and how one is read."""

from pathlib import Path
from typing import Annotated, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

from models.contracts.errors import ConfigError
from models.contracts.policy import CacheRules, ContextRule, Doubtful
from models.contracts.scalars import Count, LabelName, Number, Port, Probability
from models.contracts.wire import decode_toml

C = TypeVar("C", bound=Struct)

Bytes = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Sha256 = Annotated[str, Meta(pattern="^([0-9A-Fa-f]{64})?$")]


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Strict: a misspelt key is an error, not a default."""


class ServerTls(Section, frozen=True, kw_only=True):
    """A listener's certificate; with `client_ca`, clients must show one that it signed (RFC 5425)."""

    certificate: str
    key: str
    client_ca: str = ""


class ClientTls(Section, frozen=True, kw_only=True):
    """How we check the far end, and who we are to it."""

    ca: str = ""  # empty: the system's
    certificate: str = ""
    key: str = ""


class Model(Section, frozen=True, kw_only=True):
    release: str = "soc-triage"  # a shipped release's name, or a path to a GGUF
    sha256: Sha256 = ""  # empty: not checked; `edge init` writes it
    task: str = ""  # a task file, for an instruct model that carries no release
    threads: Annotated[int, Meta(ge=0, le=256)] = 0  # each has a context in memory; 0: one per core, at most two
    batch_events: Annotated[int, Meta(ge=1, le=256)] = 256
    batch_ms: Annotated[int, Meta(ge=1, le=10_000)] = 20
    context_tokens: Annotated[int, Meta(ge=256, le=131_072)] = 1024


class Repeats(Section, frozen=True, kw_only=True):
    """Repeats of an id are dropped while they are among the last `window_events` and younger than `window_s`."""

    window_events: Count = 65_536
    window_s: Seconds = 600.0


class Operations(Section, frozen=True, kw_only=True):
    """`/healthz`, `/readyz` and `/metrics`."""

    host: str = "127.0.0.1"
    port: Port = 9477


class PolicySection(Section, frozen=True, kw_only=True):
    """What an operator says of the policy; what he leaves out stays as the release has it."""

    number: Number | UnsetType = UNSET
    accept_at: Probability | UnsetType = UNSET
    accept_at_by_label: dict[LabelName, Probability] | UnsetType = UNSET
    mass_floor: Probability | UnsetType = UNSET
    doubtful: Doubtful | UnsetType = UNSET
    when: tuple[ContextRule, ...] | UnsetType = UNSET
    cache: CacheRules | UnsetType = UNSET


def read_toml(path: Path, kind: type[C], writer: str) -> C:
    """Read and check a configuration file; opens nothing else. `writer` is the command that writes a first one.

    Raises:
        ConfigError: the file, the key, what was found and what is wanted.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows write a byte order mark
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; `{writer}` writes one") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; wanted a file that we may read") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read: {error}; wanted UTF-8") from error
    return decode_toml(text, kind, str(path))


def read_password(where: str, path: str) -> str:
    """Return what stands in a password file, and nothing where there is none; `where` names its source or output.

    Raises:
        ConfigError: it cannot be read.
    """
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{where}: `password_file` {path} cannot be read: {said}; look at the path and its owner"
        ) from error
