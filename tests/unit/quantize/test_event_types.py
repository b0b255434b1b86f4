from collections import Counter
from pathlib import Path

import pytest

from models.contracts.errors import InputError
from quantize.event_types import (
    FOLDS,
    EventType,
    Fold,
    folds_of,
    in_fold,
    read_event_types,
    without_look_alikes,
)
from quantize.product_groups import product_groups

TYPES = read_event_types()


def test_every_event_type_is_in_exactly_one_fold() -> None:
    assert sum(len(in_fold(TYPES, fold)) for fold in FOLDS) == len(TYPES)


def test_every_held_out_fold_has_each_label_about_as_often_as_the_corpus() -> None:
    whole = Counter(kind.label for kind in TYPES)
    for fold in FOLDS:
        held = in_fold(TYPES, fold)
        labels = Counter(kind.label for kind in held)

        assert set(labels) == set(whole)
        assert all(abs(labels[name] / len(held) - whole[name] / len(TYPES)) < 0.05 for name in whole)


def test_the_held_out_folds_are_near_their_shares() -> None:
    assert 0.18 < len(in_fold(TYPES, "test")) / len(TYPES) < 0.22
    assert 0.11 < len(in_fold(TYPES, "calibration")) / len(TYPES) < 0.15


@pytest.mark.parametrize("fold", ["test", "calibration"])
def test_no_vendor_is_most_of_what_is_held_out(fold: Fold) -> None:
    groups = product_groups(kind.product for kind in TYPES)
    held = in_fold(TYPES, fold)

    ((_, most),) = Counter(groups[kind.product] for kind in held).most_common(1)

    assert most / len(held) < 0.12


def test_a_group_that_joins_the_corpus_moves_no_other_product() -> None:
    products = {kind.product for kind in TYPES}
    folds = folds_of(products)

    assert {name: fold for name, fold in folds_of(products | {"Newcomer One"}).items() if name in products} == folds


def test_a_held_out_template_that_says_what_a_learnt_one_says_is_dropped() -> None:
    learnt = EventType("Kea", "dhcp", "text", "benign", ("no free leases on network {ip} for client {mac} today",))
    again = EventType("Other", "dhcp", "text", "benign", ("no free leases on network {ip6} for client {mac} today",))
    fresh = EventType("Fresh", "dhcp", "text", "benign", ("the pool of addresses has run dry at last",))

    assert without_look_alikes([again, fresh], [learnt]) == [fresh]


def test_templates_name_no_vulnerability_of_their_own() -> None:
    assert [kind.product for kind in TYPES for template in kind.templates if "CVE-" in template] == []


def test_a_broken_line_is_named_with_its_file_and_number(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text('{"product": 1}\n', encoding="utf-8")

    with pytest.raises(InputError, match=r"one\.jsonl:1"):
        read_event_types(tmp_path)
