"""What an entry holds, what two witnesses agree on, and how many of its hits are audited."""

import pytest
from msgspec.structs import replace

from dataflows.cache.entry import (
    Answer,
    Entry,
    agreed,
    answer_of,
    audit_below,
    audit_rate,
    cut_fields,
    instance_of,
    is_tied,
    name_of,
    packed,
)
from models.contracts.opinion import Opinion
from models.contracts.policy import CacheRules
from models.masking import Masking

COPIED = frozenset(("source", "target"))
SAID = Opinion(
    probabilities=(0.1, 0.2, 0.7),
    label_mass=0.9,
    fields={"source": ("10.0.0.1",), "technique": ("T1110",), "target": ("10.0.0.9",)},
)


def answer(text: str, opinion: Opinion = SAID):
    masked = Masking().mask(text)
    assert masked is not None
    return answer_of(opinion, masked.key, COPIED, text, masked.spans)


def entry(opinion: Opinion = SAID, text: str = "from 10.0.0.1 to 10.0.0.9", **fields: object) -> Entry:
    found = answer(text, opinion)
    assert found is not None
    return Entry(packed=packed(found), label=2, sure=True, since=0.0, used_at=0.0, **fields)  # type: ignore[arg-type]


def test_an_answer_survives_being_packed() -> None:
    found = answer("from 10.0.0.1 to 10.0.0.9")

    assert entry().answer == found
    assert entry().name == name_of(Masking().mask("from 10.0.0.1 to 10.0.0.9").key)
    assert entry().confidence == 0.7


def test_an_answer_holds_no_word_that_was_copied_from_a_text() -> None:
    assert b"10.0.0" not in entry().packed
    assert b"T1110" in entry().packed


def test_fields_are_cut_from_the_new_event_and_stay_in_order() -> None:
    text = "from 10.8.8.8 to 10.77.7.7"
    masked = Masking().mask(text)
    assert masked is not None
    fields = cut_fields(entry(), text, masked)

    assert fields == {"source": ("10.8.8.8",), "technique": ("T1110",), "target": ("10.77.7.7",)}
    assert list(fields) == list(SAID.fields)


def test_a_value_that_may_stand_at_two_places_is_cut_where_both_say_the_same() -> None:
    same = Opinion(probabilities=SAID.probabilities, label_mass=1.0, fields={"source": ("10.0.0.1",)})
    found = entry(same, "from 10.0.0.1 to 10.0.0.1")
    mask = Masking().mask

    alike, apart = "from 10.2.2.2 to 10.2.2.2", "from 10.2.2.2 to 10.3.3.3"
    assert cut_fields(found, alike, mask(alike)) == {"source": ("10.2.2.2",)}  # type: ignore[arg-type]
    assert cut_fields(found, apart, mask(apart)) is None  # type: ignore[arg-type]


def test_a_value_that_ends_within_a_mask_makes_no_answer() -> None:
    assert answer("from 10.0.0.12 to 10.0.0.9") is None


def test_two_witnesses_agree_on_the_places_that_both_have_and_on_the_less_sure_of_them() -> None:
    one = answer("from 10.0.0.9 to 10.0.0.9", replace(SAID, fields={"target": ("10.0.0.9",)}))
    other = answer(
        "from 10.0.0.1 to 10.0.0.9",
        Opinion(probabilities=(0.2, 0.2, 0.6), label_mass=0.95, fields={"target": ("10.0.0.9",)}),
    )
    assert one is not None
    assert other is not None
    both = agreed(one, other, 2)
    assert both is not None

    assert len(one.places["target"][0]) == 2
    assert both.places == other.places
    assert both.probabilities == (0.2, 0.2, 0.6)
    assert (both.highest, both.label_mass) == (0.7, 0.9)
    assert agreed(other, one, 2) == both


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"source": ("10.0.0.1",), "technique": ("T1190",), "target": ("10.0.0.9",)},
        {"source": ("10.0.0.9",), "technique": ("T1110",), "target": ("10.0.0.9",)},
        {"source": ("10.0.0.1", "from"), "technique": ("T1110",), "target": ("10.0.0.9",)},
        {"source": ("10.0.0.1",), "technique": ("T1110",)},
    ],
)
def test_two_witnesses_with_other_fields_do_not_agree(fields: dict[str, tuple[str, ...]]) -> None:
    text = "from 10.0.0.1 to 10.0.0.9"
    one, other = answer(text), answer(text, replace(SAID, fields=fields))
    assert one is not None
    assert other is not None

    assert agreed(one, other, 2) is None


def test_of_the_audit_rates_that_apply_the_highest_counts() -> None:
    rules = CacheRules(audit_rate=0.01, audit_rate_grave=0.02, audit_rate_young=0.05, young_hits=100)

    assert audit_rate(entry(hits=0), rules, grave=False) == 0.05
    assert audit_rate(entry(hits=99), rules, grave=True) == 0.05
    assert audit_rate(entry(hits=100), rules, grave=False) == 0.01
    assert audit_rate(entry(hits=100), rules, grave=True) == 0.02


def test_a_bound_that_the_policy_demands_makes_audits_as_frequent_as_it_needs_until_it_is_met() -> None:
    rules = CacheRules(audit_rate=0.01, young_hits=0, bound=0.001, bound_within_hits=29_950)

    assert audit_rate(entry(), rules, grave=False) == 0.1
    assert audit_rate(entry(audits=2994), rules, grave=False) == 0.1
    assert audit_rate(entry(audits=2995), rules, grave=False) == 0.01
    assert audit_rate(entry(), replace(rules, bound_within_hits=10), grave=False) == 1.0
    assert entry(audits=2995).bound <= 0.001 < entry(audits=2994).bound


def test_a_rate_is_a_share_of_four_thousand_million() -> None:
    assert (audit_below(0.0), audit_below(0.5), audit_below(1.0)) == (0, 1 << 31, 1 << 32)


def test_texts_and_keys_have_names_of_their_own() -> None:
    assert instance_of("a") == instance_of("a") != instance_of("b")
    assert len(instance_of("a")) == 16  # nobody finds two that share one
    assert name_of("a") == name_of("a") != name_of("b")


@pytest.mark.parametrize(
    ("least_sure", "highest", "tied"),
    [
        ((0.52, 0.46, 0.02), 0.52, False),  # they all say the same, however narrowly
        ((0.52, 0.46, 0.02), 0.57, False),
        ((0.52, 0.46, 0.02), 0.60, True),
        ((0.34, 0.33, 0.33), 0.51, True),
        ((0.70, 0.20, 0.10), 0.95, False),
    ],
)
def test_a_label_is_tied_that_leads_by_less_than_its_witnesses_differ(
    least_sure: tuple[float, ...], highest: float, *, tied: bool
) -> None:
    answer = Answer(name="n", probabilities=least_sure, highest=highest, label_mass=1.0)

    assert is_tied(answer) == tied
