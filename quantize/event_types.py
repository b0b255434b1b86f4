"""The corpus: event types with their templates, and the folds, which never share a product."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from models.contracts.errors import InputError

CORPUS = Path(__file__).parent / "corpus"

Fold = Literal["train", "calibration", "test"]
FOLDS: tuple[Fold, ...] = ("train", "calibration", "test")


class FieldRoles(Struct, frozen=True):
    """Which placeholder or literal of a template plays which role."""

    source: str | None = None
    target: str | None = None
    observable: tuple[str, ...] = ()


class EventType(Struct, frozen=True):
    """One kind of event of one product, with the ways in which it is written."""

    product: str
    family: str
    format: str
    label: str
    templates: tuple[str, ...]
    technique: str | None = None
    fields: FieldRoles = FieldRoles()
    why: str = ""


def read_event_types(folder: Path = CORPUS) -> list[EventType]:
    """Read every event type, in file and line order.

    Raises:
        InputError: the file and the line that is not one.
    """
    types: list[EventType] = []
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                types.append(msgspec.json.decode(line, type=EventType))
            except msgspec.DecodeError as error:
                raise InputError(f"{path}:{number}: {error}") from error
    return types


def corpus_digest(folder: Path = CORPUS) -> str:
    """Return the SHA-256 over the corpus files, names included: what a release says it was made from."""
    digest = sha256()
    for path in sorted(folder.glob("*.jsonl")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def vendor_of(product: str) -> str:
    """Return what must not cross folds: the first word of the product's name.

    `Fortinet FortiGate` and `Fortinet FortiWeb` write alike, and so do the dozens of `AWS` services.
    """
    word = product.replace("/", " ").split()[0].casefold()
    return _SAME_VENDOR.get(word, word)


def fold_of(product: str) -> Fold:
    """Return the product's fold: 15 % of the vendors for the test, 10 % for calibration, the rest to learn from."""
    # A hash and not a shuffle: a product that joins the corpus later moves no other one.
    share = int.from_bytes(sha256(vendor_of(product).encode()).digest()[:4]) / 2**32
    if share < _TEST_SHARE:
        return "test"
    if share < _TEST_SHARE + _CALIBRATION_SHARE:
        return "calibration"
    return "train"


def in_fold(types: Sequence[EventType], fold: Fold) -> list[EventType]:
    return [kind for kind in types if fold_of(kind.product) == fold]


_TEST_SHARE = 0.15
_CALIBRATION_SHARE = 0.10

# Families whose products' names begin with different words but whose events look alike.
_SAME_VENDOR = {
    "amazon": "aws",
    "azure": "microsoft",
    "windows": "microsoft",
    "sysmon": "microsoft",
    "powershell": "microsoft",
    "iis": "microsoft",
    "exchange": "microsoft",
    "directory": "microsoft",
    "gcp": "google",
    "chrome": "google",
}
