from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from models.contracts.errors import ConfigError, InputError
from quantize.event_types import EventType, folds_of
from quantize.examples import Examples, digest_of_data, examples_of
from quantize.recipe import Data
from tests.fakes.tiny_models import TASK

LABELS = TASK.label_names
GREEK = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu")
FOREIGN = [
    (kind, f"{kind} number {number}")
    for kind in ("recipes", "poems", "bank_questions", "code", "news")
    for number in range(3)
]


def lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return path


def event_type(at: int, **changes: Any) -> EventType:
    """One of a product of its own, whose two templates share no phrase with those of others."""
    words = f"{GREEK[at % 12]}{chr(97 + at // 12)} {GREEK[at // 12 % 12]}"
    made = EventType(
        product=f"{words} box",
        family="login",
        format="text",
        label=LABELS[at % 3],
        templates=(f"{words} {{user}} signed in {words}", f"{words} refused {{ip}} {words} twice"),
    )
    return replace(made, **changes)


TYPES = [event_type(at) for at in range(60)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a corpus of event types, labelled events, foreign texts, and event types of plain operation."""
    lines(tmp_path / "corpus" / "one.jsonl", TYPES[:40])  # type: ignore[arg-type]
    lines(tmp_path / "corpus" / "two.jsonl", TYPES[40:])  # type: ignore[arg-type]
    quiet = [event_type(70 + at, label="benign", templates=(f"all is well with {GREEK[at]}",)) for at in range(3)]
    lines(tmp_path / "quiet" / "event_types.jsonl", quiet)  # type: ignore[arg-type]
    lines(tmp_path / "foreign.jsonl", [{"kind": kind, "text": text} for kind, text in FOREIGN])
    rows = [
        {
            "text": f"{GREEK[at % 12]}{'x' * at} from 10.0.0.{at} {GREEK[at // 12]}{'y' * at}",
            "label": LABELS[at % 3],
            "source": f"host-{at // 3}",
            "fields": {"source": f"10.0.0.{at}"},
        }
        for at in range(120)
    ]
    lines(tmp_path / "labelled.jsonl", rows)
    return tmp_path


EVENT_TYPES = Data(kind="event-types", path="corpus", licence="CC0", attribution="nobody")
LABELLED = Data(kind="labelled", path="labelled.jsonl", licence="CC0", attribution="nobody", group_by="source")


def found(data: Data, root: Path, seed: int = 1) -> Examples:
    return examples_of(data, root, TASK, seed)


def test_event_types_are_held_out_by_product_and_an_event_type_is_one_witness(root: Path) -> None:
    examples = found(EVENT_TYPES, root)
    folds = folds_of(kind.product for kind in TYPES)

    for fold, held in (("calibration", examples.calibration), ("test", examples.test)):
        kinds = [kind for kind in TYPES if folds[kind.product] == fold]
        rarest = min(Counter(kind.label for kind in kinds).values())
        products = {one.product for one in held.examples}
        assert products <= {kind.product for kind in kinds}
        # Of each label as many as of the rarest; two templates, a line of each.
        assert Counter(one.label for one in held.examples) == dict.fromkeys(TASK.label_names, 2 * rarest)
        assert len(held.examples) == len(held.witnesses) == 2 * len(products)
        assert set(np.bincount(held.witnesses)) == {2}
        assert len({one.product for one in held.examples[:2]}) == 1
    assert {kind.product for kind in examples.types} == {product for product, mine in folds.items() if mine == "train"}
    assert {one.product for one in examples.draw(0)} == {kind.product for kind in examples.types}


def test_what_calibrates_nearly_repeats_nothing_that_is_measured(root: Path) -> None:
    folds = folds_of(kind.product for kind in TYPES)
    measured = next(kind for kind in TYPES if folds[kind.product] == "test")
    repeated = [
        replace(kind, templates=measured.templates) if folds[kind.product] == "calibration" else kind for kind in TYPES
    ]
    rest = event_type(60, product=next(kind.product for kind in TYPES if folds[kind.product] == "calibration"))
    lines(root / "corpus" / "one.jsonl", [*repeated[:40], rest])  # type: ignore[arg-type]
    lines(root / "corpus" / "two.jsonl", repeated[40:])  # type: ignore[arg-type]

    calibration = found(EVENT_TYPES, root).calibration.examples

    assert [one.product for one in calibration] == [rest.product] * len(rest.templates)


def test_event_types_of_one_label_are_refused_before_anything_is_trained(root: Path) -> None:
    lines(root / "corpus" / "one.jsonl", [replace(kind, label=LABELS[0]) for kind in TYPES[:40]])  # type: ignore[arg-type]
    lines(root / "corpus" / "two.jsonl", [replace(kind, label=LABELS[0]) for kind in TYPES[40:]])  # type: ignore[arg-type]

    with pytest.raises(InputError, match=f"too few events to learn from: `{LABELS[1]}` 0"):
        found(EVENT_TYPES, root)


def test_a_folder_of_plain_operation_that_is_not_there_is_named(root: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: no such folder of event types of plain operation"):
        found(replace(EVENT_TYPES, quiet="nowhere"), root)


def test_a_kind_of_foreign_text_that_nobody_wrote_is_named(root: Path) -> None:
    with pytest.raises(ConfigError, match="kinds \\['poetry'\\] that no text there is of"):
        found(replace(LABELLED, foreign="foreign.jsonl", foreign_without=("poetry",)), root)


def test_a_foreign_text_that_is_no_utf_8_is_a_sentence(root: Path) -> None:
    (root / "foreign.jsonl").write_bytes(b'{"kind":"caf\xe9","text":"x"}\n')

    with pytest.raises(ConfigError, match="no JSON lines with `kind` and `text`"):
        found(replace(LABELLED, foreign="foreign.jsonl"), root)


def test_what_is_learnt_from_is_drawn_anew_for_every_number_and_alike_for_the_same(root: Path) -> None:
    examples, again = found(EVENT_TYPES, root), found(EVENT_TYPES, root)
    other = found(EVENT_TYPES, root, seed=2)

    assert examples.draw(3) == again.draw(3)
    assert examples.draw(3) != examples.draw(4)
    assert examples.draw(3) != other.draw(3)
    assert examples.test.examples == other.test.examples  # releases of other seeds are measured on the same


def test_a_held_out_template_that_says_what_a_learnt_one_says_is_not_measured(root: Path) -> None:
    folds = folds_of(kind.product for kind in TYPES)
    learnt = next(kind for kind in TYPES if folds[kind.product] == "train")
    held = next(kind for kind in TYPES if folds[kind.product] == "test")
    copied = replace(held, templates=(learnt.templates[0], *held.templates[1:]))
    lines(root / "corpus" / "one.jsonl", [copied if kind is held else kind for kind in TYPES[:40]])
    lines(root / "corpus" / "two.jsonl", [copied if kind is held else kind for kind in TYPES[40:]])

    mine = [one for one in found(EVENT_TYPES, root).test.examples if one.product == held.product]

    assert len(mine) == 1


def test_a_label_of_an_event_type_that_is_none_of_the_tasks_is_refused(root: Path) -> None:
    lines(root / "corpus" / "three.jsonl", [event_type(100, label="harmless")])

    with pytest.raises(InputError, match=r"corpus: labels \['harmless'\] are none of task soc-triage's"):
        found(EVENT_TYPES, root)


@pytest.mark.parametrize("file", ["corpus/one.jsonl", "quiet/event_types.jsonl"])
def test_a_corpus_of_nothing_is_refused(root: Path, file: str) -> None:
    (root / "corpus" / "two.jsonl").unlink()
    (root / file).write_bytes(b"")

    with pytest.raises(InputError, match=r"none for|no event types"):
        found(replace(EVENT_TYPES, quiet="quiet"), root)


def test_labelled_events_are_held_out_by_the_key_that_groups_them(root: Path) -> None:
    examples = found(LABELLED, root)
    learnt = examples.draw(0)
    groups = [{one.product for one in part} for part in (learnt, examples.calibration.examples, examples.test.examples)]

    assert sum(map(len, groups)) == len(set.union(*groups)) == 40
    assert examples.draw(0) == examples.draw(9)
    assert len(examples.test.witnesses) == len(examples.test.examples) == len(examples.test.bodies)
    assert examples.types == []
    assert examples.quiet is None


def test_events_of_one_group_are_one_witness(root: Path) -> None:
    test = found(LABELLED, root).test
    groups = {example.product for example in test.examples}

    assert len(groups) == len(set(test.witnesses.tolist())) < len(test.examples)


def test_only_labels_that_the_task_reads_fields_for_have_fields(root: Path) -> None:
    learnt = found(LABELLED, root).draw(0)

    assert {one.label for one in learnt if one.fields} == set(TASK.fields_for) == {"suspicious", "critical"}
    assert all(one.fields["source"][0] in one.body for one in learnt if one.fields)


def test_labels_of_which_there_are_too_few_are_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"labelled\.jsonl: too few events to learn from"):
        found(replace(LABELLED, fewest_per_label=100), root)


def test_other_shares_hold_out_more(root: Path) -> None:
    few, many = (len(found(replace(LABELLED, test=share), root).test.examples) for share in (0.1, 0.45))

    assert few < many


def kinds_of(texts: list[str]) -> set[str]:
    return {text.split(" number ")[0] for text in texts}


@pytest.mark.parametrize("data", [EVENT_TYPES, LABELLED], ids=lambda data: data.kind)
def test_foreign_texts_are_parted_by_kind(root: Path, data: Data) -> None:
    examples = found(replace(data, foreign="foreign.jsonl"), root)
    learnt, measured = kinds_of(examples.foreign), kinds_of(examples.foreign_test)

    assert (len(learnt), len(measured)) == (3, 2)
    assert learnt | measured == {kind for kind, _ in FOREIGN}
    assert sorted([*examples.foreign, *examples.foreign_test]) == sorted(text for _, text in FOREIGN)
    assert found(replace(data, foreign="foreign.jsonl"), root).foreign == examples.foreign


def test_kinds_of_text_that_are_the_tasks_after_all_are_left_out(root: Path) -> None:
    data = replace(LABELLED, foreign="foreign.jsonl", foreign_without=("bank_questions", "poems"))
    examples = found(data, root)

    assert kinds_of(examples.foreign) | kinds_of(examples.foreign_test) == {"recipes", "code", "news"}
    assert examples.foreign_test


def test_without_foreign_texts_there_are_none(root: Path) -> None:
    examples = found(LABELLED, root)

    assert (examples.foreign, examples.foreign_test) == ([], [])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "Input data was truncated"),
        (b'{"text": "x"}', "Object missing required field `kind`"),
        (b'["recipes", "x"]', "Expected `object`, got `array`"),
        (b"3", "Expected `object`, got `int`"),
    ],
)
def test_a_file_that_holds_no_foreign_texts_is_named(root: Path, content: bytes, said: str) -> None:
    (root / "other.jsonl").write_bytes(content)

    with pytest.raises(ConfigError) as refused:
        found(replace(LABELLED, foreign="other.jsonl"), root)
    assert str(refused.value) == f"{root / 'other.jsonl'}: no JSON lines with `kind` and `text`: {said}"


def test_a_file_of_foreign_texts_that_is_not_there_is_named(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.jsonl: cannot be read: No such file or directory$"):
        found(replace(LABELLED, foreign="gone.jsonl"), root)


def test_labels_that_contradict_each_other_are_told_with_the_events(root: Path) -> None:
    assert found(LABELLED, root).doubt == ""
    path = root / "labelled.jsonl"
    rows = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    lines(path, [*rows, {**rows[0], "label": LABELS[1]}])

    assert "1 of 120 texts have more than one label" in found(LABELLED, root).doubt


def test_plain_operation_is_measured_and_never_learnt_from(root: Path) -> None:
    examples = found(replace(EVENT_TYPES, quiet="quiet"), root)

    assert examples.quiet is not None
    assert len(examples.quiet.examples) == 3
    assert all("all is well with" in body for body in examples.quiet.bodies)
    assert not any("all is well with" in one.body for one in examples.draw(0))


def test_plain_operation_that_says_what_is_learnt_is_not_measured(root: Path) -> None:
    folds = folds_of(kind.product for kind in TYPES)
    learnt = next(kind for kind in TYPES if folds[kind.product] == "train")
    lines(root / "quiet" / "event_types.jsonl", [replace(learnt, product="quiet"), event_type(200, label="benign")])

    quiet = found(replace(EVENT_TYPES, quiet="quiet"), root).quiet

    assert quiet is not None
    assert {one.product for one in quiet.examples} == {event_type(200).product}


@pytest.mark.parametrize("fold", ["train", "calibration", "test"])
def test_plain_operation_of_a_vendor_that_is_learnt_from_is_not_measured(root: Path, fold: str) -> None:
    folds = folds_of(kind.product for kind in TYPES)
    vendor = next(kind.product.split()[0] for kind in TYPES if folds[kind.product] == fold)
    quiet = [event_type(at, product=product) for at, product in ((70, f"{vendor} door"), (71, "unseen door"))]
    lines(root / "quiet" / "event_types.jsonl", quiet)

    measured = found(replace(EVENT_TYPES, quiet="quiet"), root).quiet

    assert measured is not None
    kept = ["unseen door"] if fold == "train" else [f"{vendor} door", "unseen door"]
    assert list(dict.fromkeys(one.product for one in measured.examples)) == kept


def test_the_digest_of_what_is_held_out_is_of_its_events_and_not_of_their_order(root: Path) -> None:
    test = found(EVENT_TYPES, root).test
    backwards = replace(test, examples=test.examples[::-1])
    fewer = replace(test, examples=test.examples[1:])

    assert test.digest == backwards.digest != fewer.digest
    assert found(EVENT_TYPES, root, seed=2).test.digest == test.digest


@pytest.mark.parametrize("data", [EVENT_TYPES, LABELLED], ids=lambda data: data.kind)
def test_data_that_are_not_there_are_named(tmp_path: Path, data: Data) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path / data.path}: no such data"):
        found(data, tmp_path)


@pytest.mark.parametrize(("data", "file"), [(EVENT_TYPES, "corpus/two.jsonl"), (LABELLED, "labelled.jsonl")])
def test_the_digest_changes_with_a_byte(root: Path, data: Data, file: str) -> None:
    digest = found(data, root).digest
    path = root / file
    content = path.read_bytes()

    assert digest == digest_of_data(root / data.path)
    path.write_bytes(content.replace(b"alpha", b"alphb", 1))
    assert digest_of_data(root / data.path) != digest
    path.write_bytes(content)
    assert digest_of_data(root / data.path) == digest
    path.write_bytes(content + b" ")
    assert digest_of_data(root / data.path) != digest


def test_the_digest_changes_with_the_name_of_a_file_and_not_with_its_folder(root: Path) -> None:
    digest = digest_of_data(root / "corpus")
    (root / "corpus").rename(root / "elsewhere")

    assert digest_of_data(root / "elsewhere") == digest
    (root / "elsewhere" / "two.jsonl").rename(root / "elsewhere" / "three.jsonl")
    assert digest_of_data(root / "elsewhere") != digest
