import tomllib
from collections import Counter, defaultdict

from quantize.event_types import CORPUS, read_event_types

RULES = tomllib.loads((CORPUS / "families.toml").read_text(encoding="utf-8"))
TYPES = read_event_types()


def test_every_family_of_the_corpus_has_a_rule() -> None:
    assert sorted({kind.family for kind in TYPES} - RULES.keys()) == []


def test_every_rule_is_of_a_family_that_occurs() -> None:
    assert sorted(RULES.keys() - {kind.family for kind in TYPES}) == []


def test_a_rule_names_every_label_that_its_family_has() -> None:
    labels = defaultdict(set)
    for kind in TYPES:
        labels[kind.family].add(kind.label)
    unnamed = {
        family: missing
        for family, found in labels.items()
        if (missing := sorted(label for label in found if label not in RULES[family]))
    }

    assert unnamed == {}


def test_a_rule_is_one_sentence_and_no_two_are_alike() -> None:
    assert [family for family, rule in RULES.items() if not rule.endswith(".") or ". " in rule] == []
    assert [rule for rule, times in Counter(map(str.casefold, RULES.values())).items() if times > 1] == []
