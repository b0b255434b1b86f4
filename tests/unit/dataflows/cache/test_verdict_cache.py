"""What the verdict cache learns and answers. How it is audited: `test_audits.py`; what it forgets: `test_ageing.py`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dataflows.cache.entry import Entry, Refusal
from models.contracts.opinion import Opinion
from models.contracts.policy import CacheRules, ContextRule
from tests.fakes.answering import GRAVE_TASK, UNAUDITED, Answering, jobs
from tests.fakes.classifier import BENIGN, CRITICAL, DOUBTFUL

DAY = 24 * 3600.0


def sure(confidence: float, mass: float = 0.99) -> Opinion:
    return Opinion(probabilities=(confidence, 1.0 - confidence, 0.0), label_mass=mass)


def by_number(text: str) -> Opinion:
    """As sure as the last two digits of the number say, in percent."""
    return sure(int(text.split()[1]) % 100 / 100)


def test_a_template_is_asked_about_until_enough_events_agreed_and_answers_then() -> None:
    answering = Answering(ask_first=3)
    said = answering.say(*jobs(5))

    assert answering.asked == jobs(3)
    assert [verdict.cached is not None for verdict in said] == [False, False, False, True, True]
    entry = answering.entry(jobs(1)[0])
    assert isinstance(entry, Entry)
    assert said[3].cached == entry.name
    assert (said[3].label, said[3].confidence, said[3].route, said[3].release) == (
        "benign",
        0.9,
        "accepted",
        "scripted-1",
    )
    assert said[3].text == "job 10003 ended"


def test_a_template_that_comes_first_many_times_in_one_window_is_asked_about_a_few_times_only() -> None:
    answering = Answering(ask_first=3)
    said = answering.window(*jobs(10))

    assert answering.classifier.asked == [jobs(3)]
    assert [verdict.cached is not None for verdict in said] == [False] * 3 + [True] * 7


def test_an_event_that_comes_again_is_no_second_witness() -> None:
    answering = Answering(ask_first=3)
    again = answering.say(*["job 10000 ended"] * 5)
    answering.window(*["job 10001 ended"] * 5)
    answering.say("job 10002 ended", "job 10003 ended")

    assert answering.asked == jobs(3)
    assert [verdict.cached is not None for verdict in again] == [False] + [True] * 4


def test_an_event_that_is_asked_about_again_and_again_is_no_second_witness_either() -> None:
    answering = Answering(by_number, ask_first=2, doubtful=False)
    answering.say(*["job 10070 ended"] * 5)
    answering.policy = replace(answering.policy, accept_at=0.6)

    assert answering.say("job 10071 ended")[0].cached is None


def test_a_text_that_a_witness_said_word_by_word_is_answered_while_others_are_asked_about() -> None:
    answering = Answering(ask_first=3)
    answering.say("job 10000 ended")

    (again,) = answering.say("job 10000 ended")
    (other,) = answering.say("job 10001 ended")

    assert again.cached is not None
    assert other.cached is None


def test_a_text_without_a_masked_word_is_asked_about_once() -> None:
    answering = Answering(ask_first=3)
    answering.window("door opened", "door opened", "door opened")

    assert answering.asked == ["door opened"]


@pytest.mark.parametrize("place", range(3))
def test_one_witness_that_is_answered_otherwise_refuses_the_template_whichever_it_is(place: int) -> None:
    answering = Answering(lambda text: CRITICAL if f"1000{place}" in text else BENIGN, ask_first=3)
    answering.say(*jobs(20))

    assert answering.asked == jobs(20)
    refusal = answering.entry(jobs(1)[0])
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "the answers differ"
    assert answering.cache.counts["refused"] == 1


def test_a_witness_on_the_other_side_of_the_threshold_refuses_the_template() -> None:
    answering = Answering(by_number, ask_first=3)
    answering.say("job 10090 ended", "job 10070 ended", "job 10091 ended", "job 10092 ended")

    assert len(answering.asked) == 4
    assert isinstance(answering.entry("job 10000 ended"), Refusal)


def test_a_policy_that_is_content_with_fewer_witnesses_than_came_loses_no_event() -> None:
    answering = Answering(ask_first=5)
    answering.say(*jobs(3))
    answering.rule(ask_first=2)
    said = answering.window(*jobs(9, first=20_000))

    assert [verdict.text for verdict in said] == jobs(9, first=20_000)
    assert said[-1].cached is not None


@given(
    st.lists(
        st.one_of(
            st.lists(st.integers(10_000, 10_020), min_size=1, max_size=6),
            st.fixed_dictionaries(
                {},
                optional={
                    "ask_first": st.integers(1, 6),
                    "ask_first_grave": st.integers(1, 6),
                    "doubtful": st.booleans(),
                    "enabled": st.booleans(),
                    "max_entries": st.integers(1, 3),
                    "audit_rate": st.sampled_from([0.0, 0.3, 1.0]),
                },
            ),
        ),
        max_size=20,
    )
)
def test_every_event_has_one_verdict_or_one_dead_letter_whatever_the_policy_becomes(
    steps: list[list[int] | dict[str, object]],
) -> None:
    """A number decides on the label, and one in seven is refused by the model."""
    answering = Answering(lambda text: CRITICAL if int(text.split()[1]) % 5 == 0 else BENIGN)
    answering.classifier._poison = lambda text: int(text.split()[1]) % 7 == 0
    for step in steps:
        if isinstance(step, dict):
            answering.rule(**step)
            continue
        answering.letters.clear()
        texts = [f"{'ab'[number % 2]} {number} ended" for number in step]
        said = [verdict.text for verdict in answering.window(*texts) if verdict.revision == 0]
        buried = [letter.raw.decode() for letter in answering.letters]

        assert sorted(said + buried) == sorted(texts)
        assert said == [text for text in texts if text in said]


def test_grave_labels_need_more_witnesses() -> None:
    answering = Answering(lambda _: CRITICAL, task=GRAVE_TASK, ask_first=2, ask_first_grave=5)
    answering.say(*jobs(8))

    assert answering.asked == jobs(5)


def test_an_answer_that_is_not_accepted_is_cached_and_still_not_accepted() -> None:
    answering = Answering(lambda _: DOUBTFUL, ask_first=2)
    said = answering.say(*jobs(4))

    assert [(verdict.route, verdict.cached is not None) for verdict in said] == [
        ("review", False),
        ("review", False),
        ("review", True),
        ("review", True),
    ]


@pytest.mark.parametrize("rules", [{"doubtful": False}, {"doubtful_route": "unsure"}])
def test_an_answer_that_is_not_accepted_is_not_cached_where_nobody_would_look_at_it(rules: dict[str, object]) -> None:
    answering = Answering(lambda _: DOUBTFUL, ask_first=2, **rules)  # type: ignore[arg-type]
    answering.say(*jobs(4), *jobs(4))

    assert answering.asked == jobs(4) * 2


def test_nor_is_it_where_a_rule_lets_nobody_look_at_some_events() -> None:
    answering = Answering(lambda _: DOUBTFUL, ask_first=2)
    answering.policy = replace(answering.policy, when=(ContextRule(context={"zone": "lab"}, doubtful="unsure"),))
    answering.say(*jobs(4), *jobs(4))

    assert answering.asked == jobs(4) * 2


@pytest.mark.parametrize("place", range(3))
def test_a_doubtful_witness_counts_wherever_it_comes_also_where_doubtful_answers_are_not_cached(place: int) -> None:
    answering = Answering(lambda text: DOUBTFUL if f"1000{place}" in text else BENIGN, ask_first=2, doubtful=False)
    answering.say(*jobs(3), *jobs(10, first=20_000))

    cached = [text for text in jobs(10, first=20_000) if text not in answering.asked]
    assert (cached == []) == (place < 2)  # the third comes when two have agreed already


def test_the_least_sure_witness_speaks_for_the_template() -> None:
    answering = Answering(by_number, ask_first=3)
    said = answering.say("job 10095 ended", "job 10085 ended", "job 10090 ended", "job 10099 ended")

    assert said[3].confidence == 0.85
    assert said[3].probabilities["benign"] == 0.85


def test_a_threshold_that_rises_takes_acceptance_from_what_is_cached_and_asks_nobody() -> None:
    answering = Answering(by_number, ask_first=2)
    answering.say("job 10081 ended", "job 10082 ended", "job 10083 ended")
    answering.policy = replace(answering.policy, accept_at=0.95)

    (said,) = answering.say("job 10084 ended")

    assert (said.route, said.cached is not None, said.confidence) == ("review", True, 0.81)
    answering.policy = replace(answering.policy, accept_at=0.8)
    assert answering.say("job 10085 ended")[0].route == "accepted"
    assert len(answering.asked) == 2


def test_a_threshold_that_now_stands_between_the_witnesses_has_the_template_learnt_anew() -> None:
    answering = Answering(by_number, ask_first=2)
    answering.say("job 10081 ended", "job 10099 ended", "job 10083 ended")
    answering.policy = replace(answering.policy, accept_at=0.9)

    said = answering.say("job 10095 ended", "job 10096 ended", "job 10097 ended")

    assert [verdict.cached is not None for verdict in said] == [False, False, True]


def test_a_threshold_that_rises_has_the_model_asked_where_doubtful_answers_are_not_cached() -> None:
    answering = Answering(by_number, ask_first=2, doubtful=False)
    answering.say("job 10081 ended", "job 10082 ended", "job 10083 ended")
    answering.policy = replace(answering.policy, accept_at=0.95)

    assert answering.say("job 10084 ended")[0].cached is None
    answering.policy = replace(answering.policy, accept_at=0.8)
    assert answering.say("job 10085 ended")[0].cached is not None  # decided from what was kept


def test_a_witness_with_little_label_mass_holds_the_template_back_where_the_policy_has_a_floor() -> None:
    answering = Answering(lambda text: sure(0.9, mass=0.5 if "10001" in text else 0.99), ask_first=2)
    answering.say(*jobs(3))
    answering.policy = replace(answering.policy, mass_floor=0.7)

    assert answering.say(jobs(4)[3])[0].cached is None


def test_an_event_that_was_cut_is_asked_about_and_teaches_nothing() -> None:
    answering = Answering(ask_first=1)
    answering.window("job 10000 ended", truncated=True)
    assert len(answering.cache) == 0
    answering.say("job 10001 ended")

    assert answering.window("job 10002 ended", truncated=True)[0].cached is None
    assert answering.say("job 10003 ended")[0].cached is not None


def test_an_opinion_on_a_part_of_a_text_teaches_nothing_and_ends_a_template_that_others_taught() -> None:
    answering = Answering(lambda text: replace(BENIGN, truncated="10001" in text), ask_first=3)
    answering.say("job 10001 ended")
    assert (len(answering.cache), answering.cache.refusals()) == (0, [])
    answering.say(*jobs(5))

    assert isinstance(answering.entry(jobs(1)[0]), Refusal)


def test_a_template_of_which_an_event_became_a_dead_letter_is_never_cached() -> None:
    answering = Answering(ask_first=3)
    answering.classifier._poison = lambda text: "10001" in text
    verdicts = answering.window(*jobs(2))
    answering.say(*jobs(5, first=20_000))

    assert [verdict.text for verdict in verdicts] == ["job 10000 ended"]
    assert [letter.raw for letter in answering.letters] == [b"job 10001 ended"]
    refusal = answering.entry(jobs(1)[0])
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "the model did not read all of an event"


def grave(text: str) -> Opinion:
    """Critical, from the first word to the second."""
    source, target = text.split()[1], text.split()[3]
    fields = {"source": (source,), "technique": ("T1110",), "target": (target,)}
    return replace(CRITICAL, fields=fields)


def test_fields_are_cut_from_the_new_event() -> None:
    answering = Answering(grave, task=GRAVE_TASK, ask_first_grave=2)
    said = answering.say(*(f"from 10.0.0.{n} to 10.1.1.{n + 1} here" for n in (1, 2, 30)))

    assert said[2].cached is not None
    assert said[2].fields == {"source": ("10.0.0.30",), "technique": ("T1110",), "target": ("10.1.1.31",)}
    assert list(said[2].fields) == list(said[0].fields)


def test_an_event_in_which_a_field_could_be_either_of_two_words_is_asked_about_and_settles_which() -> None:
    answering = Answering(grave, task=GRAVE_TASK, ask_first_grave=2)
    answering.say(*(f"from 10.0.0.{n} to 10.0.0.{n} here" for n in (1, 2)))

    said = answering.say("from 10.0.0.3 to 10.0.0.4 here", "from 10.0.0.5 to 10.0.0.6 here")

    assert [verdict.cached is not None for verdict in said] == [False, True]
    assert said[1].fields["source"] == ("10.0.0.5",)
    assert answering.cache.counts["audits"] == 0  # nobody drew it


@pytest.mark.parametrize(
    "other",
    [
        {"source": ("10.1.1.9",)},
        {"technique": ("T1190",)},
        {"target": ()},
        {"source": ("here",)},
    ],
)
def test_witnesses_with_fields_of_other_places_or_other_choices_refuse_the_template(
    other: dict[str, tuple[str, ...]],
) -> None:
    def answer(text: str) -> Opinion:
        said = grave(text)
        return replace(said, fields=said.fields | other) if "10.1.1.9" in text else said

    answering = Answering(answer, task=GRAVE_TASK, ask_first_grave=2)
    answering.say("from 10.0.0.1 to 10.1.1.1 here", "from 10.0.0.1 to 10.1.1.9 here")

    refusal = answering.entry("from 10.0.0.1 to 10.1.1.9 here")
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "the fields differ"


def test_a_field_that_ends_within_a_masked_word_refuses_the_template() -> None:
    answering = Answering(lambda _: replace(CRITICAL, fields={"source": ("10.0.0",)}), task=GRAVE_TASK)
    answering.say("from 10.0.0.1 to here", "from 10.0.0.2 to here")

    refusal = answering.entry("from 10.0.0.1 to here")
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "a field cannot be cut from other events"


def test_refusals_are_bounded_and_those_in_use_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataflows.cache.refusals._MOST", 3)
    answering = Answering(lambda text: CRITICAL if "10001" in text else BENIGN, ask_first=2)
    for word in "abcde":
        answering.say(f"a 1000{len(word)} x 10000", f"{word} job 10000", f"{word} job 10001", "a job 10000")

    assert len(answering.cache.refusals()) == 3
    assert any(key.startswith("a ") for key, _ in answering.cache.refusals())


def test_counts_say_what_became_of_every_event() -> None:
    answering = Answering(lambda text: CRITICAL if "bad 10001" in text else BENIGN, ask_first=2, max_entries=3)
    answering.window(*jobs(5), "bad 10000", "bad 10001", "bad 10002")
    answering.say("door opened", "window opened", "gate opened", *jobs(3))

    counts = +answering.cache.counts  # without those that are 0
    assert counts == {"asked": len(answering.asked), "hits": 6, "refused": 1, "evicted": 1}


def test_an_explanation_is_the_key_and_what_is_known_of_it() -> None:
    answering = Answering(ask_first=1)
    answering.say("job 10000 ended")
    masked, entry = answering.cache.explain("job 10001 ended")

    assert masked is not None
    assert [(masked.key, entry)] == list(answering.cache.listing())
    assert answering.cache.explain("job \x02 ended") == (None, None)
    assert answering.cache.explain("run 10001")[1] is None


def test_a_cache_that_is_off_asks_about_everything() -> None:
    answering = Answering(enabled=False)
    said = answering.say(*["door opened"] * 3)

    assert answering.asked == ["door opened"] * 3
    assert {verdict.cached for verdict in said} == {None}


def test_rules_of_a_test_are_rules_of_the_policy() -> None:
    assert set(UNAUDITED) <= set(CacheRules.__struct_fields__)
