import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from models.contracts.errors import InputError
from quantize.event_types import (
    CORPUS,
    FOLDS,
    EventType,
    Fold,
    evenly,
    folds_of,
    in_fold,
    read_event_types,
    without_look_alikes,
)
from quantize.product_groups import product_groups
from quantize.recipe import read_task

ROOT = Path(__file__).parents[3]
TASK = read_task(ROOT / "models" / "tasks" / "soc-triage.toml")
TYPES = read_event_types()
HELD = {fold: in_fold(TYPES, fold) for fold in FOLDS}
GROUPS = product_groups(kind.product for kind in TYPES)
QUIET = CORPUS.parent / "quiet"


def is_crossed(kind: EventType) -> bool:
    return kind.family.startswith(("command-", "action-"))


@pytest.mark.parametrize("path", sorted([*CORPUS.glob("*.jsonl"), *QUIET.glob("*.jsonl")]), ids=lambda path: path.stem)
def test_every_file_of_event_types_reads_and_its_labels_are_the_tasks(path: Path, tmp_path: Path) -> None:
    (tmp_path / path.name).symlink_to(path)
    types = read_event_types(tmp_path)

    assert len(types) == len(path.read_bytes().splitlines()) > 0
    assert {kind.label for kind in types} <= set(TASK.label_names)
    assert [kind for kind in types if not kind.product.strip() or not all(map(str.strip, kind.templates))] == []
    assert [kind for kind in types if not kind.templates] == []


def test_plain_operation_is_nothing_to_be_alarmed_at() -> None:
    assert {kind.label for kind in read_event_types(QUIET)} == {TASK.label_names[0]}


def test_an_event_type_is_in_one_fold_or_its_name_is_of_several_products_in_several_folds() -> None:
    folds = folds_of(kind.product for kind in TYPES)
    nowhere = [kind for kind in TYPES if kind.product not in folds]

    assert sum(map(len, HELD.values())) + len(nowhere) == len(TYPES)
    assert [kind.product for kind in nowhere if len(GROUPS[kind.product]) < 2] == []
    assert len(nowhere) < 0.05 * len(TYPES)


def test_no_group_is_in_two_folds() -> None:
    folds = defaultdict(set)
    for fold in FOLDS:
        for kind in HELD[fold]:
            for group in GROUPS[kind.product]:
                folds[group].add(fold)

    assert {group: found for group, found in folds.items() if len(found) > 1} == {}


@pytest.mark.parametrize("fold", ["test", "calibration"])
def test_nothing_that_is_learnt_is_held_out_under_another_name(fold: Fold) -> None:
    def words(template: str) -> str:
        return " ".join(re.findall(r"[^\W\d_]+", re.sub(r"\{[a-z0-9_]+\}", " ", template.casefold())))

    learnt = {words(template) for kind in HELD["train"] for template in kind.templates}
    kept = without_look_alikes(HELD[fold], HELD["train"])

    assert [kind.product for kind in kept for template in kind.templates if words(template) in learnt] == []
    assert len(kept) > 0.9 * len(HELD[fold])


def test_every_held_out_fold_has_each_label_about_as_often_as_the_corpus() -> None:
    whole = Counter(kind.label for kind in TYPES)
    for held in HELD.values():
        labels = Counter(kind.label for kind in held)

        assert set(labels) == set(whole)
        assert all(abs(labels[name] / len(held) - whole[name] / len(TYPES)) < 0.05 for name in whole)


def test_the_held_out_folds_are_near_their_shares() -> None:
    held = {fold: [kind for kind in kinds if not is_crossed(kind)] for fold, kinds in HELD.items()}
    placed = sum(map(len, held.values()))

    assert 0.16 < len(held["test"]) / placed < 0.24
    assert 0.10 < len(held["calibration"]) / placed < 0.16


def test_what_is_crossed_with_many_products_is_learnt_from_alone() -> None:
    # The same command stands in records of several products: in another fold it would be known there.
    crossed = [kind for kind in TYPES if is_crossed(kind)]

    assert crossed
    assert [kind.product for kind in crossed if kind not in HELD["train"]] == []


@pytest.mark.parametrize("fold", ["test", "calibration"])
def test_no_vendor_is_most_of_what_is_held_out(fold: Fold) -> None:
    ((_, most),) = Counter(group for kind in HELD[fold] for group in GROUPS[kind.product]).most_common(1)

    assert most / len(HELD[fold]) < 0.12


def test_a_group_that_joins_the_corpus_moves_no_other_product() -> None:
    products = {kind.product for kind in TYPES}
    folds = folds_of(products)

    assert {name: fold for name, fold in folds_of(products | {"Newcomer One"}).items() if name in products} == folds


def test_a_name_of_products_in_two_folds_is_in_none() -> None:
    folds = folds_of(kind.product for kind in TYPES)
    one, other = (
        next(kind.product for kind in HELD[fold] if len(GROUPS[kind.product]) == 1) for fold in ("train", "test")
    )
    both = f"{one} / {other}"
    again = folds_of({kind.product for kind in TYPES} | {both})

    assert both not in again
    assert again == folds


def test_a_held_out_template_that_says_what_a_learnt_one_says_is_dropped() -> None:
    learnt = EventType("Kea", "dhcp", "text", "benign", ("no free leases on network {ip} for client {mac} today",))
    again = EventType("Other", "dhcp", "text", "benign", ("no free leases on network {ip6} for client {mac} today",))
    fresh = EventType("Fresh", "dhcp", "text", "benign", ("the pool of addresses has run dry at last",))

    assert without_look_alikes([again, fresh], [learnt]) == [fresh]


def test_look_alikes_are_found_whichever_alternative_is_first() -> None:
    learnt = EventType("Kea", "dhcp", "text", "benign", ("[[no free|zero]] leases on network {ip} for client {mac}",))
    again = EventType("Other", "dhcp", "text", "benign", ("[[no free|spare]] leases on network {ip} for client {mac}",))

    assert without_look_alikes([again], [learnt]) == []


def test_an_event_type_keeps_the_templates_that_say_something_new() -> None:
    learnt = EventType("Kea", "dhcp", "text", "benign", ("no free leases on network {ip} for client {mac} today",))
    held = EventType("Other", "dhcp", "text", "benign", (*learnt.templates, "the pool of addresses has run dry"))

    assert [kind.templates for kind in without_look_alikes([held], [learnt])] == [
        ("the pool of addresses has run dry",)
    ]


def test_as_many_of_each_label_are_kept_as_the_rarest_has_in_their_order() -> None:
    kinds = [
        EventType("Kea", "dhcp", "text", label, (f"{label} {n}",))
        for n, label in enumerate(["benign"] * 5 + ["suspicious"] * 2 + ["critical"] * 3)
    ]
    kept = evenly(kinds)

    assert Counter(kind.label for kind in kept) == {"benign": 2, "suspicious": 2, "critical": 2}
    assert kept == [kind for kind in kinds if kind in kept]
    assert set(map(id, evenly(kinds[::-1]))) == set(map(id, kept))
    assert evenly([]) == []


def test_templates_name_no_vulnerability_of_their_own() -> None:
    assert [kind.product for kind in TYPES for template in kind.templates if re.search(r"CVE-\d", template)] == []


@pytest.mark.parametrize(
    "line",
    [
        b'{"product": 1}',
        b'{"product":"caf\xe9","family":"f","format":"text","label":"benign","templates":["x"]}',
        b'{"product":"p","family":"f","format":"text","label":"benign","templates":[]}',
        b"[" * 200_000,
    ],
    ids=["another form", "no UTF-8", "no template", "too deep"],
)
def test_a_broken_line_is_named_with_its_file_and_number(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "one.jsonl").write_bytes(line + b"\n")

    with pytest.raises(InputError, match=r"one\.jsonl:1"):
        read_event_types(tmp_path)
