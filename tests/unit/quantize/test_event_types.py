from pathlib import Path

import pytest

from models.contracts.errors import InputError
from quantize.event_types import (
    FOLDS,
    EventType,
    fold_of,
    in_fold,
    read_event_types,
    vendor_of,
    without_look_alikes,
)

TYPES = read_event_types()


def test_every_event_type_is_in_exactly_one_fold() -> None:
    assert sum(len(in_fold(TYPES, fold)) for fold in FOLDS) == len(TYPES)


def test_no_product_and_no_vendor_crosses_folds() -> None:
    vendors = {fold: {vendor_of(kind.product) for kind in in_fold(TYPES, fold)} for fold in FOLDS}

    assert not vendors["train"] & vendors["test"]
    assert not vendors["train"] & vendors["calibration"]
    assert not vendors["calibration"] & vendors["test"]


def test_services_of_one_vendor_share_a_fold() -> None:
    assert fold_of("AWS CloudTrail") == fold_of("Amazon Inspector")
    assert fold_of("Sysmon") == fold_of("Windows Security") == fold_of("Microsoft 365 audit")


def test_the_held_out_folds_are_near_their_shares() -> None:
    assert 0.10 < len(in_fold(TYPES, "test")) / len(TYPES) < 0.25
    assert 0.06 < len(in_fold(TYPES, "calibration")) / len(TYPES) < 0.20


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
