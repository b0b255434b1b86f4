"""The corpus: event types with their templates, and the folds, which never share a product."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from models.contracts.errors import InputError
from quantize.product_groups import product_groups

CORPUS = Path(__file__).parent / "corpora" / "soc-triage"

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
    templates: Annotated[tuple[str, ...], Meta(min_length=1)]
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
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise InputError(f"{path}:{number}: {error}") from error
    return types


def corpus_digest(folder: Path = CORPUS) -> str:
    """Return the SHA-256 over the corpus files, names included: what a release says it was made from."""
    digest = sha256()
    for path in sorted(folder.glob("*.jsonl")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def folds_of(products: Iterable[str]) -> dict[str, Fold]:
    """Return the fold of every product: 20 % of the groups for the test, 13 % for calibration, the rest to learn from.

    Products that are one product, or of one vendor, share a fold. They have to be handed in together: a name may join
    two others. A name of several products that are in different folds is in none, and missing here.
    """
    folds = {
        product: {_fold_of_group(group) for group in groups} for product, groups in product_groups(products).items()
    }
    return {product: fold for product, (fold, *others) in folds.items() if not others}


def in_fold(types: Sequence[EventType], fold: Fold) -> list[EventType]:
    """Return those of `types`, which are the whole corpus, that are in the fold."""
    folds = folds_of(kind.product for kind in types)
    return [kind for kind in types if folds.get(kind.product) == fold]


def _fold_of_group(group: str) -> Fold:
    # A hash and not a shuffle: a group that joins the corpus later moves no other one.
    share = int.from_bytes(sha256(f"{_SALT}/{group}".encode()).digest()[:4]) / 2**32
    if share < _TEST_SHARE:
        return "test"
    if share < _TEST_SHARE + _CALIBRATION_SHARE:
        return "calibration"
    return "train"


def without_look_alikes(held_out: Sequence[EventType], learnt: Sequence[EventType]) -> list[EventType]:
    """Drop the templates of `held_out` that say much the same as one of `learnt`, whatever the product is called."""
    by_phrase: dict[tuple[str, ...], list[int]] = {}
    known = [_phrases(template) for kind in learnt for template in kind.templates]
    for index, phrases in enumerate(known):
        for phrase in phrases:
            by_phrase.setdefault(phrase, []).append(index)

    whole = {tuple(_words(template)) for kind in learnt for template in kind.templates}

    def looks_learnt(template: str) -> bool:
        if tuple(_words(template)) in whole:  # all alternatives of all of its places
            return True
        phrases = _phrases(template)
        shared = Counter(index for phrase in phrases for index in by_phrase.get(phrase, ()))
        return any(both > _ALIKE * len(phrases | known[index]) for index, both in shared.items())

    kept = []
    for kind in held_out:
        templates = tuple(template for template in kind.templates if not looks_learnt(template))
        if templates:
            kept.append(replace(kind, templates=templates))
    return kept


def of_other_vendors(
    plain: Sequence[EventType], learnt: Sequence[EventType], corpus: Sequence[EventType]
) -> list[EventType]:
    """Drop the event types of `plain` that are of a vendor of `learnt`; groups are made of all products there are."""
    groups = product_groups(kind.product for kind in (*plain, *corpus))
    known = {group for kind in learnt for group in groups[kind.product]}
    return [kind for kind in plain if known.isdisjoint(groups[kind.product])]


def evenly(types: Sequence[EventType]) -> list[EventType]:
    """Return as many of each label as the rarest of them has: those whose templates have the lowest hashes."""
    ranks = [sha256("\n".join(kind.templates).encode()).digest() for kind in types]
    by_label: dict[str, list[bytes]] = {}
    for kind, rank in zip(types, ranks, strict=True):
        by_label.setdefault(kind.label, []).append(rank)
    fewest = min(map(len, by_label.values()), default=0)
    highest = {label: sorted(found)[fewest - 1] for label, found in by_label.items()}
    return [kind for kind, rank in zip(types, ranks, strict=True) if rank <= highest[kind.label]]


def _phrases(template: str) -> frozenset[tuple[str, ...]]:
    """Return every three words in a row, of alternatives the first; placeholders and figures left out."""
    words = _words(_FIRST_OF.sub(r"\1", template))
    return frozenset(zip(words, words[1:], words[2:], strict=False))


def _words(template: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", re.sub(r"\{[a-z0-9_]+\}", " ", template.casefold()))


_FIRST_OF = re.compile(r"\[\[([^\[\]|]*)\|[^\[\]]*\]\]")
_ALIKE = 0.5  # of the phrases that either has
_TEST_SHARE = 0.20
_CALIBRATION_SHARE = 0.13
# A number by which each held-out fold has every label about as often as the corpus, and is of no group for more than
# 12 %. The three largest groups, a fifth of the corpus, have to be learnt from for that; so the folds come to 17 % and
# 11 % of what is in one.
_SALT = 167
