"""Whether an old answer can hide a new attack: each attack comes once, behind a thousand lines that look like it.

Look-alikes are as hostile as we know how. Best are lines with the very key of the attack and a milder label by the
model: it is asked about many of them, and where there are any, the cache learns from nothing else. Otherwise they are
benign lines of the same product and format, and the attack itself with one word from such a line. And attacks come
first in which the model reads something of what is masked: no others can be told from a line with their key.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import cycle, islice
from random import Random

from msgspec import Struct

from bench.cache.fresh import fresh, line_of
from bench.cache.steps import Remembering, answers, events_of, label_of, words
from bench.cache.stream import Sizes
from bench.row import Row
from dataflows.cache.verdict_cache import VerdictCache
from models.classifier import Classifier
from models.contracts.policy import Policy
from models.contracts.release import Release
from models.masking import Masking
from models.opening import open_classifier
from models.release_file import release_path
from quantize.ask import Asked
from quantize.event_types import EventType, in_fold, read_event_types
from quantize.events import body_of
from quantize.expand import expand

_SEED = 5
_TOLD = 50  # attacks
_BENIGN = "benign"
_TWINS = 48  # lines with the key of an attack that the model is asked about
_SIBLINGS = 24  # benign lines of its product
_VALUES = 6  # in the masked words of an attack, to see whether the model reads any
_SPLICED = 24  # the attack with one of their words
_WORD = re.compile(r"[^\s\"'=,;()\[\]{}<>|]+")


Attack = tuple[EventType, str]
"""A line, and what it is of."""


class Case(Struct, frozen=True):
    """An attack, and what the cache is taught before it comes."""

    attack: str
    label: str  # that the model gives it, asked about it alone
    look_alikes: list[str]  # none, where nothing milder is like it
    same_key: bool  # as the attack's, of all of them


class Outcome(Struct, frozen=True):
    """What became of an attack that the model finds."""

    case: Case
    label: str  # that the gateway gives it
    cached: bool


def rows(sizes: Sizes) -> list[Row]:
    """Count the attacks that the model finds and to which the gateway, taught otherwise, gives a milder label."""
    types = read_event_types()
    with closing(open_classifier(sizes.release)) as opened:
        gateway, release = Remembering(opened), opened.release
        # Fields take time and change no label, so look-alikes are chosen without.
        path, threads = release_path(sizes.release), os.cpu_count() or 1
        with Asked(path, release, fields=False, threads=threads) as uncached:
            classifier, count = Remembering(uncached), sizes.look_alikes
            attacks = at_risk_first(attacks_of(types), release)
            cases = (
                case_of(attack, label, siblings(kind, types), classifier, count)
                for kind, attack, label in islice(found(attacks, uncached), sizes.attacks)
            )
            outcomes, alone = tried(cases, gateway)
    return [row(outcomes, alone, count, release)]


def tried(cases: Iterable[Case], gateway: Classifier) -> tuple[list[Outcome], int]:
    """Return what became of attacks, and how many were left out: there is nothing to teach before those."""
    outcomes, alone = list[Outcome](), 0
    for number, case in enumerate(cases, start=1):
        if case.look_alikes:
            outcomes.append(outcome(case, gateway, gateway.release.policy))
        else:
            alone += 1
        if number % _TOLD == 0:
            print(f"attacks: {number} done", file=sys.stderr)
    return outcomes, alone


def row(outcomes: Sequence[Outcome], alone: int, look_alikes: int, release: Release) -> Row:
    """Count the attacks that were missed, and say how hostile the others were."""
    missed = [one for one in outcomes if is_missed(one, release)]
    for one in missed:
        said = f"{one.label} for {one.case.label}: {one.case.attack!r}"
        print(f"attacks: missed: {said} behind {one.case.look_alikes[0]!r}", file=sys.stderr)
    read = sum(is_read(one.case.attack, release) for one in outcomes)
    own_key, cached = sum(one.case.same_key for one in outcomes), sum(one.cached for one in outcomes)
    taught = f"{look_alikes:,} look-alikes each, for {own_key} with their very key; {alone} without any left out"
    return Row(
        name="missed_attacks",
        value=len(missed),
        unit=f"of {len(outcomes)}",
        peer=f"{taught}; in {read} the model reads what is masked; {cached} answered from the cache",
        passed=bool(outcomes) and not missed,
    )


def is_missed(one: Outcome, release: Release) -> bool:
    """Tell whether the gateway says something milder than the model does of that very text."""
    gravity = release.task.label_names.index  # the corpus's task has them from mild to grave
    return gravity(one.label) < gravity(one.case.label)


def attacks_of(types: Sequence[EventType]) -> list[Attack]:
    """Return attacks on products that the release never saw, in a random order."""
    kinds = [kind for kind in in_fold(types, "test") if kind.label != _BENIGN]
    attacks = [(kind, line.text) for kind in kinds for line in expand([kind], copies=1, seed=_SEED)]
    Random(_SEED).shuffle(attacks)
    return attacks


def at_risk_first(attacks: Sequence[Attack], release: Release) -> list[Attack]:
    """Put those first in which a release reads something of what is masked."""
    return sorted(attacks, key=lambda attack: not is_read(attack[1], release))


def is_read(text: str, release: Release) -> bool:
    """Tell whether other values in the masked words make another text for the release."""
    masking, chance = Masking(), Random(_SEED)
    line = line_of(text, masking)
    return len({words(body_of(fresh(line, masking, chance)), release) for _ in range(_VALUES)}) > 1


def found(attacks: Iterable[Attack], classifier: Classifier) -> Iterator[tuple[EventType, str, str]]:
    """Yield attacks with the model's label, but for those that it calls benign: no cache is to blame for that."""
    for kind, text in attacks:
        (opinion,) = classifier.classify([body_of(text)])
        if (label := label_of(opinion, classifier.release)) != _BENIGN:
            yield kind, text, label


def siblings(kind: EventType, types: Sequence[EventType]) -> list[str]:
    """Return benign lines of the same product, of the same format where there are any."""
    of_product = [other for other in types if other.product == kind.product and other.label == _BENIGN]
    alike = [other for other in of_product if other.format == kind.format] or of_product
    return [line.text for line in islice(expand(alike, copies=4, seed=_SEED), _SIBLINGS)]


def case_of(attack: str, label: str, benign: Sequence[str], classifier: Classifier, count: int) -> Case:
    """Choose the look-alikes of an attack: those that put it at the greatest risk."""
    masking, chance = Masking(), Random(f"{_SEED}/{attack}")
    line = line_of(attack, masking)
    drawn = [fresh(line, masking, chance) for _ in range(_TWINS)]
    names = classifier.release.task.label_names
    # Of one label, the mildest that there is: a template with two would not be cached.
    twins = next(filter(None, (_called(name, drawn, classifier) for name in names[: names.index(label)])), [])
    pool = twins or _called(_BENIGN, [*benign, *spliced(attack, benign, chance)], classifier)
    lines = [line_of(text, masking) for text in pool]
    # The same for the model, and different for the cache, which counts its witnesses.
    look_alikes = []
    for like in islice(cycle(lines), count):
        other = fresh(like, masking, chance)
        same = words(body_of(other), classifier.release) == words(body_of(like.text), classifier.release)
        look_alikes.append(other if same else like.text)
    return Case(attack, label, look_alikes, bool(twins))


def spliced(attack: str, benign: Sequence[str], chance: Random) -> list[str]:
    """Return the attack with one of its words from a benign line of its product instead, at a few places."""
    places = [found.span() for found in _WORD.finditer(attack)]
    other = [word for text in benign for word in _WORD.findall(text)]
    if not places or not other:
        return []
    drawn = [chance.choice(places) for _ in range(_SPLICED)]
    return [f"{attack[:begin]}{chance.choice(other)}{attack[end:]}" for begin, end in drawn]


def outcome(case: Case, classifier: Classifier, policy: Policy) -> Outcome:
    """Teach a cache the look-alikes, and see what it says of the attack."""
    known = VerdictCache(case.attack.encode("utf-8", "surrogatepass")[:32])
    taught = events_of(case.look_alikes)
    for _ in answers(taught, classifier, policy, known):
        pass
    (answer,) = answers(events_of([case.attack], len(taught)), classifier, policy, known)
    return Outcome(case, label_of(answer.opinion, classifier.release), answer.template is not None)


def _called(name: str, texts: Sequence[str], classifier: Classifier) -> list[str]:
    """Return the different lines to which the model gives a label."""
    distinct = list(dict.fromkeys(texts))
    opinions = classifier.classify([body_of(text) for text in distinct])
    labels = [label_of(opinion, classifier.release) for opinion in opinions]
    return [text for text, label in zip(distinct, labels, strict=True) if label == name]
