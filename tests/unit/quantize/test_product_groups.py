from collections import defaultdict

import pytest

from quantize.event_types import folds_of, read_event_types
from quantize.product_groups import product_groups, telling_words

PRODUCTS = frozenset(kind.product for kind in read_event_types())
GROUPS = product_groups(PRODUCTS)


@pytest.mark.parametrize(
    "names",
    [
        ("Apache Solr", "Solr"),
        ("systemd", "systemd-logind", "systemd-journald"),
        ("VMware Carbon Black", "Carbon Black App Control"),
        ("Akamai", "Linode / Akamai Cloud"),
        ("Microsoft SQL Server", "SQL Server ERRORLOG", "MSSQL on Linux"),
        ("Ivanti Connect Secure", "Pulse / Ivanti Connect Secure"),
        ("Kea DHCP", "ISC Kea / dhcpd"),
        ("Tanium / osquery", "osquery", "Tanium"),
        ("Stalwart and Dovecot host", "Dovecot"),
        ("AWS CloudTrail", "Amazon Inspector", "EKS authenticator"),
        ("Sysmon", "Windows Security", "Microsoft 365 audit", "Directory Service", "Defender for Office 365 / EOP"),
        ("GCP Cloud Audit Logs", "Google Workspace"),
        ("Fortinet FortiGate", "FortiWeb"),
    ],
)
def test_one_product_under_several_names_is_in_one_group_and_one_fold(names: tuple[str, ...]) -> None:
    assert set(names) <= PRODUCTS
    assert len({GROUPS[name] for name in names}) == 1
    assert len({folds_of(PRODUCTS)[name] for name in names}) == 1


@pytest.mark.parametrize("vendor", ["Linode", "Pulse Secure"])
def test_a_name_of_a_vendor_that_shares_no_word_with_it_is_known(vendor: str) -> None:
    groups = product_groups([vendor, "Akamai", "Ivanti Connect Secure"])

    assert sorted(groups.values()).count(groups[vendor]) == 2


def test_no_telling_word_stands_in_two_folds() -> None:
    folds = defaultdict(set)
    for product, fold in folds_of(PRODUCTS).items():
        for word in telling_words(product):
            folds[word].add(fold)

    assert {word: where for word, where in folds.items() if len(where) > 1} == {}


def test_a_word_for_a_kind_of_thing_joins_nothing() -> None:
    assert len(set(product_groups(["Docker Registry", "npm registry", "Kong Gateway", "Citrix Gateway"]).values())) == 4


def test_groups_stay_vendors_and_do_not_run_together() -> None:
    apart = ("microsoft", "aws", "google", "cisco", "apache", "vmware", "kubernetes", "hashicorp", "macos", "github")
    sizes = {group: sum(mine == group for mine in GROUPS.values()) for group in set(GROUPS.values())}

    assert set(apart) <= set(sizes)
    assert max(sizes.values()) == sizes["microsoft"] < 0.08 * len(PRODUCTS)


def test_a_name_of_words_that_say_little_is_a_group_of_its_own() -> None:
    assert product_groups(["Generic web server", "389 Directory Server"]) == {
        "Generic web server": "generic web server",
        "389 Directory Server": "389 directory server",
    }


def test_a_newcomer_to_any_group_renames_no_group() -> None:
    for group in sorted(set(GROUPS.values()))[::10]:
        for newcomer in (f"Aaa {group}", f"{group} zzz"):
            again = product_groups(PRODUCTS | {newcomer})

            assert {product: again[product] for product in PRODUCTS} == GROUPS
            assert again[newcomer] == group


def test_the_groups_do_not_depend_on_the_order_of_the_names() -> None:
    assert product_groups(sorted(PRODUCTS, reverse=True)) == GROUPS
