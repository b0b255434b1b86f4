from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contracts.errors import ConfigError, InputError
from quantize.labelled import (
    FOLDS,
    Labelled,
    _Phrases,
    check_proportions,
    contradictions,
    part,
    phrases_of,
    read_labelled,
)
from tests.fakes.tiny_models import TASK

FAILED = "Failed password for root from 10.0.0.1 port 22"
OPENED = "session opened for user ana by uid zero"
ROWS = ({"text": FAILED, "label": "suspicious"}, {"text": OPENED, "label": "benign"})
GREEK = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu")


def written(folder: Path, *rows: object) -> Path:
    path = folder / "events.jsonl"
    path.write_bytes(b"".join((row if isinstance(row, bytes) else msgspec.json.encode(row)) + b"\n" for row in rows))
    return path


def refusal(path: Path, group_by: str = "") -> str:
    with pytest.raises(InputError) as refused:
        read_labelled(path, TASK, group_by)
    said = str(refused.value)
    assert said.startswith(f"{path}: ")
    return said.removeprefix(f"{path}: ")


def test_events_are_read_in_their_order_and_empty_lines_are_none(tmp_path: Path) -> None:
    events = read_labelled(written(tmp_path, ROWS[0], b"", b"  ", ROWS[1]), TASK)

    assert [(event.text, event.label) for event in events] == [(FAILED, "suspicious"), (OPENED, "benign")]


@pytest.mark.parametrize(
    "row", [{"label": "benign"}, {"text": 1, "label": "benign"}, {"text": " \n", "label": "benign"}, ["x"], 3]
)
def test_a_line_without_a_text_is_refused_with_its_number(tmp_path: Path, row: object) -> None:
    assert refusal(written(tmp_path, *ROWS, b"", row)) == "line 4: no `text`"


@pytest.mark.parametrize("row", [{"text": FAILED}, {"text": FAILED, "label": ""}, {"text": FAILED, "label": None}])
def test_an_event_without_a_label_is_refused_with_its_number(tmp_path: Path, row: object) -> None:
    assert refusal(written(tmp_path, row, *ROWS)) == "line 1: no `label`"


def test_a_misspelt_label_is_refused_with_the_one_that_was_perhaps_meant(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, *ROWS, {"text": FAILED, "label": "suspicous"})) == (
        "line 3: label `suspicous` is none of task soc-triage, `suspicious` perhaps; "
        "it has `benign`, `suspicious`, `critical`"
    )


@pytest.mark.parametrize("label", ["blue", 7, ["x"]])
def test_a_label_that_is_like_none_is_refused_without_a_guess(tmp_path: Path, label: object) -> None:
    said = refusal(written(tmp_path, *ROWS, {"text": FAILED, "label": label}))

    assert said == f"line 3: label `{label}` is none of task soc-triage; it has `benign`, `suspicious`, `critical`"


def test_a_line_that_is_no_json_is_refused_with_its_number(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, *ROWS, b'{"text": "cut off')).startswith("line 3: ")
    assert refusal(written(tmp_path, *ROWS, b'{"text": "\xff", "label": "benign"}')).startswith("line 3: ")


def test_of_many_faults_the_first_five_are_named_and_the_others_counted(tmp_path: Path) -> None:
    said = refusal(written(tmp_path, *[{"label": "benign"}] * 8))

    assert said == "; ".join(f"line {number}: no `text`" for number in range(1, 6)) + "; and 3 more"


def test_one_label_alone_is_nothing_to_learn(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, ROWS[0], ROWS[0])) == (
        "2 events with the one label 'suspicious'; nothing can be learnt or measured from fewer than two of "
        "`benign`, `suspicious`, `critical`"
    )


def test_an_empty_file_is_nothing_to_learn(tmp_path: Path) -> None:
    assert refusal(written(tmp_path)).startswith("0 events with no label; ")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.jsonl", tmp_path):
        with pytest.raises(ConfigError, match=f"{path}: cannot be read"):
            read_labelled(path, TASK)


def fields_of(folder: Path, fields: object) -> dict[str, tuple[str, ...]]:
    row = {"text": FAILED, "label": "suspicious", "fields": fields}
    return read_labelled(written(folder, row, *ROWS), TASK)[0].fields


def test_a_value_that_does_not_occur_in_the_text_is_dropped(tmp_path: Path) -> None:
    given = {"source": "10.0.0.1", "observable": ["root", "toor", "10.0.0"]}

    assert fields_of(tmp_path, given) == {"source": ("10.0.0.1",), "observable": ("root",)}


def test_a_choice_that_the_task_does_not_have_is_dropped(tmp_path: Path) -> None:
    assert fields_of(tmp_path, {"technique": "T1110"}) == {"technique": ("T1110",)}
    assert fields_of(tmp_path, {"technique": "T1111"}) == {}


@pytest.mark.parametrize("fields", [None, {}, {"colour": "root"}, {"source": []}, {"source": [1, None]}])
def test_fields_that_say_nothing_of_the_task_are_none(tmp_path: Path, fields: object) -> None:
    assert fields_of(tmp_path, fields) == {}


def test_events_are_grouped_by_the_key_that_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, *({**row, "source": f"host-{at}"} for at, row in enumerate(ROWS)))

    assert [event.group for event in read_labelled(path, TASK, "source")] == ["host-0", "host-1"]


@pytest.mark.parametrize(
    ("source", "said"),
    [({}, "no `source`"), ({"source": 3}, "`source` is no string"), ({"source": None}, "`source` is no string")],
)
def test_an_event_without_the_key_that_groups_it_is_refused(
    tmp_path: Path, source: dict[str, object], said: str
) -> None:
    path = written(tmp_path, *({**row, "source": "host"} for row in ROWS), {**ROWS[0], **source})

    assert refusal(path, "source") == f"line 3: {said}, by which events are parted"


def test_a_byte_order_mark_is_no_part_of_the_first_event(tmp_path: Path) -> None:
    path = written(tmp_path, *ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    assert [event.text for event in read_labelled(path, TASK)] == [FAILED, OPENED]


def test_texts_with_more_than_one_label_are_counted_and_the_first_is_shown() -> None:
    said = [event("a \x1b", label="benign"), event("b"), event("c"), event("c", label="critical"), event("c")]

    assert contradictions(said, "events.jsonl") == (
        "events.jsonl: 1 of 3 texts have more than one label; the first, 'c', has `benign`, `critical`"
    )
    assert "the first, 'a \\x1b', has" in contradictions([*said, event("a \x1b", label="critical")], "events.jsonl")
    assert contradictions([event("a"), event("a"), event("b", label="critical")], "events.jsonl") == ""


def test_events_that_differ_in_figures_alone_are_one_group(tmp_path: Path) -> None:
    again = {"text": FAILED.replace("10.0.0.1", "10.9.9.9").upper(), "label": "critical"}
    groups = [event.group for event in read_labelled(written(tmp_path, *ROWS, again), TASK)]

    assert groups[0] == groups[2] != groups[1]


def test_a_fold_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    said = refusal(written(tmp_path, *ROWS, {**ROWS[0], "fold": "validation"}))

    assert said == "line 3: fold `validation` is none of `train`, `calibration`, `test`"


def event(text: str, group: str = "", fold: str = "", label: str = "benign") -> Labelled:
    return Labelled(text, label, group or text, fold=fold)


def different(count: int) -> list[str]:
    """Texts that share no two words in a row."""
    return [f"{GREEK[at % 12]}{at} {GREEK[at // 12 % 12]}{at} happened" for at in range(count)]


def parted(events: Sequence[Labelled], test: float = 0.2, calibration: float = 0.13) -> dict[str, list[Labelled]]:
    return part(events, test=test, calibration=calibration, where="events.jsonl")


WORDS = st.sampled_from(GREEK)


@given(st.lists(st.tuples(st.lists(WORDS, min_size=1, max_size=5).map(" ".join), WORDS), min_size=1, max_size=60))
def test_a_group_is_never_parted_and_nothing_is_in_two_folds(pairs: list[tuple[str, str]]) -> None:
    try:
        folds = parted([event(text, group) for text, group in pairs])
    except InputError:  # so few that a fold is empty
        return
    groups = {fold: {one.group for one in kept} for fold, kept in folds.items()}

    assert sum(map(len, groups.values())) == len(set.union(*groups.values()))
    assert not Counter(one.text for kept in folds.values() for one in kept) - Counter(text for text, _ in pairs)


def test_folds_have_their_shares_of_many_groups_and_newcomers_move_nobody() -> None:
    events = [event(f"{GREEK[at % 12]} {'x' * at}", f"host-{at}") for at in range(1_000)]
    folds = parted(events, test=0.3, calibration=0.1)
    fewer = parted(events[:500], test=0.3, calibration=0.1)

    assert {fold: len(kept) / 1_000 for fold, kept in folds.items()} == pytest.approx(
        {"train": 0.6, "calibration": 0.1, "test": 0.3}, abs=0.04
    )
    assert all(set(map(str, fewer[fold])) <= set(map(str, folds[fold])) for fold in FOLDS)


def test_a_near_repeat_under_another_header_is_one() -> None:
    closed = "sshd[7]: session closed for user ana"
    events = [
        event(f"Jan  2 03:04:05 alpha {closed}", "a", "train"),
        event(f"Feb  9 11:04:05 bravo-db.example {closed}", "b", "test"),
        event("the disk on the first shelf is full", "c", "test"),
        event("door seven was opened with a key", "d", "calibration"),
    ]

    assert [one.group for one in parted(events)["test"]] == ["c"]


def test_a_near_repeat_of_any_of_a_thousand_records_of_one_form_is_one() -> None:
    def record(at: int) -> str:
        own = " ".join(
            f"{letter}{chr(97 + at // 26 % 26)}{chr(97 + at % 26)}{chr(97 + at // 676)}" for letter in "pqrstuvwxy"
        )
        return f"the audit log of the tenant says by the api that {own}"

    events = [event(record(at), f"a{at}", "train") for at in range(1_000)]
    again = [event(f"{record(at)} again", f"b{at}", "test") for at in (100, 700)]
    others = [event("a disk is full", "c", "test"), event("door seven was opened", "d", "calibration")]

    assert [one.group for one in parted([*events, *again, *others])["test"]] == ["c"]


def test_a_near_repeat_is_one_although_its_rarest_words_are_of_another_text() -> None:
    users = [f"{first}{second}{third}" for first in "abcdefgh" for second in "ijklmnop" for third in "qrstuvwx"]
    learnt = [event(f"session closed for the local user {user} by the kernel", user, "train") for user in users]
    greeted = event("hello zoe by night", "greeted", "train")
    repeat = event("session closed for the local user zoe by the kernel", "repeat", "test")
    others = [event("a disk is full", "c", "test"), event("door seven was opened", "d", "calibration")]

    assert [one.group for one in parted([*learnt, greeted, repeat, *others])["test"]] == ["c"]


@given(st.lists(st.lists(WORDS, max_size=9).map(" ".join), max_size=30), st.lists(WORDS, max_size=9).map(" ".join))
def test_near_repeats_are_those_that_a_comparison_with_all_finds(known: list[str], text: str) -> None:
    mine, others = phrases_of(text), [phrases_of(one) for one in known]
    compared = any(mine == one or len(mine & one) > 0.6 * len(mine | one) for one in others)

    assert _Phrases(known).nearly_hold(text) == compared


def test_near_repeats_of_what_is_measured_on_are_not_calibrated_on() -> None:
    events = [
        event(FAILED, "a", "train"),
        event(OPENED, "b", "test"),
        event(OPENED.replace("10.0.0.2", "172.16.0.1") + " again", "c", "calibration"),
        event("the disk on the first shelf is full", "d", "calibration"),
    ]

    assert [one.group for one in parted(events)["calibration"]] == ["d"]


def test_near_repeats_of_what_is_learnt_are_kept_out_of_the_held_out_folds() -> None:
    repeat = event("failed password FOR root from 10.1.1.9 port 2222 again", "b", "test")
    events = [
        event(FAILED, "a", "train"),
        repeat,
        event(FAILED.replace("10.0.0.1", "172.16.0.1"), "c", "calibration"),
        event(OPENED, "d", "calibration"),
        event("the disk on the first shelf is full", "e", "test"),
    ]

    assert {fold: [one.group for one in kept] for fold, kept in parted(events).items()} == {
        "train": ["a"], "calibration": ["d"], "test": ["e"],
    }  # fmt: skip


def test_a_file_that_names_its_folds_is_taken_by_its_word() -> None:
    texts = different(9)
    events = [event(text, fold=FOLDS[at % 3]) for at, text in enumerate(texts)]

    assert {fold: [one.text for one in kept] for fold, kept in parted(events).items()} == {
        fold: texts[at::3] for at, fold in enumerate(FOLDS)
    }


def test_a_group_in_two_named_folds_is_refused() -> None:
    one, other, third = different(3)
    events = [event(one, "host-1", "train"), event(other, "host-1", "test"), event(third, "host-2", "calibration")]

    with pytest.raises(InputError) as refused:
        parted(events)

    assert str(refused.value) == (
        "events.jsonl: group `host-1` is in train and in test; what is learnt from cannot be measured on"
    )


def test_a_file_of_which_only_a_part_names_folds_is_refused() -> None:
    one, other = different(2)

    with pytest.raises(InputError, match="some events name a fold and others do not"):
        parted([event(one, fold="train"), event(other)])


def test_a_fold_in_which_nothing_is_left_is_refused_with_how_much_there_was() -> None:
    texts = different(2)
    alike = [event(text, fold="test") for text in texts] + [event(f"{text} 7", fold="train") for text in texts]

    with pytest.raises(InputError) as refused:
        parted(alike)
    assert str(refused.value) == "events.jsonl: nothing is left for calibration and test of 4 events in 4 groups"

    with pytest.raises(InputError, match=r"of 5 events in 1 group$"):
        parted([event(text, "the only host") for text in different(5)])


@given(st.text(max_size=60))
def test_phrases_know_no_figures_and_no_case(text: str) -> None:
    assert not any(map(str.isdecimal, "".join(phrases_of(text))))
    assert phrases_of(f"{text} 42") == phrases_of(text)


def test_labels_of_which_there_are_enough_can_be_learnt() -> None:
    learnt = [event(f"{label} {at}", label=label) for label in TASK.label_names for at in range(3)]

    check_proportions([one.label for one in learnt], TASK, 3, "events.jsonl", of=9)
    with pytest.raises(InputError) as refused:
        check_proportions([one.label for one in learnt if one.label != "critical"][:-1], TASK, 3, "events.jsonl", of=90)
    assert str(refused.value) == (
        "events.jsonl: too few events to learn from: `suspicious` 2, `critical` 0; at least 3 each wanted "
        "(`data.fewest_per_label`), and 5 of 90 are learnt from"
    )
