"""The bench that looks for attacks behind an old answer finds one where the cache can be taught to miss it."""

from random import Random

from msgspec.structs import replace

from bench.cache.attacks import (
    Case,
    Outcome,
    at_risk_first,
    case_of,
    found,
    is_missed,
    outcome,
    row,
    siblings,
    spliced,
    tried,
)
from models.contracts.opinion import Opinion
from models.contracts.policy import MASKS, CacheRules, Policy
from models.contracts.release import Prompt
from quantize.event_types import EventType
from tests.fakes.classifier import BENIGN, CRITICAL, ScriptedClassifier, release
from tests.fakes.tiny_models import RELEASE

SLOW = "worker: job took 950 ms for 203.0.113.9"
ATTACK = "worker: attack by job 12345 from 203.0.113.9"
PLAIN = ["worker: job 54321 started", "worker: job 54321 done"]
SUSPICIOUS = Opinion(probabilities=(0.03, 0.94, 0.03), label_mass=0.99)


def by_amount(text: str) -> Opinion:
    """Benign below 900 ms."""
    return CRITICAL if "took 9" in text or "attack" in text else BENIGN


def policy(*, without: str = "") -> Policy:
    """Nothing is audited, so that nothing but the masks decides."""
    masks = tuple(mask for mask in MASKS if mask != without)
    return Policy(cache=CacheRules(masks=masks, audit_rate=0, audit_rate_young=0, audit_rate_grave=0))


def test_an_attack_is_missed_where_a_masked_word_alone_tells_it_from_what_the_cache_was_taught() -> None:
    classifier = ScriptedClassifier(by_amount)
    case = case_of(SLOW, "critical", PLAIN, classifier, 40)

    missed, seen = (outcome(case, classifier, policy(without=mask)) for mask in ("", "amount"))

    assert case.same_key
    assert len(case.look_alikes) == 40
    assert not any("took 9" in text for text in case.look_alikes)
    assert (missed.label, missed.cached) == ("benign", True)
    assert (seen.label, seen.cached) == ("critical", False)
    assert is_missed(missed, release())
    assert not is_missed(seen, release())


def test_an_attack_is_missed_where_it_gets_any_milder_label_than_the_model_gives_it() -> None:
    classifier = ScriptedClassifier(lambda text: CRITICAL if "took 9" in text else SUSPICIOUS)
    case = case_of(SLOW, "critical", PLAIN, classifier, 40)

    missed = outcome(case, classifier, policy())

    assert case.same_key
    assert (missed.label, missed.cached) == ("suspicious", True)
    assert is_missed(missed, release())
    found_out = row([missed, Outcome(case, "critical", cached=False)], 0, 40, release())
    assert (found_out.value, found_out.unit, found_out.passed) == (1, "of 2", False)


def test_an_attack_that_gets_a_graver_label_than_the_model_gives_it_is_not_missed() -> None:
    case = Case(SLOW, "suspicious", PLAIN, same_key=False)

    assert not is_missed(Outcome(case, "critical", cached=True), release())


def test_an_attack_without_a_benign_twin_comes_behind_benign_lines_of_its_product() -> None:
    classifier = ScriptedClassifier(by_amount)
    case = case_of(ATTACK, "critical", PLAIN, classifier, 60)

    seen = outcome(case, classifier, policy())

    assert not case.same_key
    assert not any("attack" in text for text in case.look_alikes)
    assert any("by job" in text for text in case.look_alikes)  # the attack, with one word of theirs
    assert any(text.endswith("started") for text in case.look_alikes)
    assert (seen.label, seen.cached) == ("critical", False)


def test_an_attack_that_nothing_milder_looks_like_is_left_out_and_counted_apart() -> None:
    classifier = ScriptedClassifier(by_amount)
    alone, other = (case_of(ATTACK, "critical", benign, classifier, 60) for benign in ([], PLAIN))

    outcomes, left_out = tried([alone, other], classifier)

    assert alone.look_alikes == []
    assert ([one.case for one in outcomes], left_out) == ([other], 1)
    said = row(outcomes, left_out, 60, release())
    assert (said.unit, said.passed) == ("of 1", True)
    assert said.peer.startswith("60 look-alikes each, for 0 with their very key; 1 without any left out; ")


def test_where_every_attack_was_left_out_nothing_is_shown() -> None:
    assert row([], 3, 60, release()).passed is False


def test_attacks_in_which_the_model_reads_what_is_masked_come_first_and_those_that_it_misses_never() -> None:
    kind = EventType("Gate", "access", "syslog", "critical", ("attack",))
    reads_words = replace(RELEASE, prompt=Prompt(kind="encoder", wording="words-1"))
    plain, erased, read, mild = (
        (kind, text) for text in ("attack by root", "attack from 203.0.113.9", "attack for 950 ms", "took 12 ms")
    )

    attacks = at_risk_first([plain, erased, read, mild], reads_words)

    assert attacks == [read, mild, plain, erased]
    assert list(found(attacks, ScriptedClassifier(by_amount))) == [
        (*attack, "critical") for attack in (read, plain, erased)
    ]


def test_one_word_of_an_attack_is_replaced_at_a_time() -> None:
    words = ATTACK.split()

    for text in spliced(ATTACK, PLAIN, Random(1)):
        assert sum(one != other for one, other in zip(words, text.split(), strict=True)) <= 1


def test_look_alikes_are_of_the_same_product_and_where_there_are_any_of_the_same_format() -> None:
    def kind(label: str, log: str, product: str = "Gate") -> EventType:
        return EventType(product, "access", log, label, (f"{product} {log} {label}",))

    attack, json = kind("critical", "syslog"), kind("critical", "json")
    types = [attack, json, kind("benign", "syslog"), kind("benign", "cef"), kind("benign", "syslog", "Door")]

    assert {"Gate syslog benign" in text for text in siblings(attack, types)} == {True}
    assert all("Gate" in text for text in siblings(json, types))
    assert {log for log in ("syslog", "cef") for text in siblings(json, types) if log in text} == {"syslog", "cef"}
