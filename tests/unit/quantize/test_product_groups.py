import re
from collections import defaultdict

import pytest

from quantize.event_types import folds_of, read_event_types
from quantize.product_groups import product_groups, telling_words

PRODUCTS = frozenset(kind.product for kind in read_event_types())
GROUPS = product_groups(PRODUCTS)
FOLDS = folds_of(PRODUCTS)


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
        ("AWS CloudTrail", "Amazon Inspector"),
        ("kube-apiserver", "EKS authenticator", "AKS audit"),
        ("Sysmon", "Windows Security", "Microsoft 365 audit", "Directory Service"),
        ("GCP Cloud Audit Logs", "Google Workspace"),
        ("Fortinet FortiGate", "FortiWeb"),
    ],
)
def test_one_product_under_several_names_is_in_one_group_and_one_fold(names: tuple[str, ...]) -> None:
    assert set(names) <= PRODUCTS
    assert {len(GROUPS[name]) for name in names} == {1}
    assert len({GROUPS[name] for name in names}) == 1
    assert len({FOLDS[name] for name in names}) == 1


@pytest.mark.parametrize(
    ("name", "products"),
    [
        ("Tanium / osquery", ("Tanium", "osquery")),
        ("Stalwart and Dovecot host", ("Stalwart", "Dovecot")),
        ("Envoy + Istio, Linkerd", ("Envoy", "Istio", "Linkerd")),
    ],
)
def test_a_name_of_several_products_is_in_the_groups_of_all_and_joins_none(
    name: str, products: tuple[str, ...]
) -> None:
    groups = product_groups([name, *products])

    assert len({groups[product] for product in products}) == len(products)
    assert groups[name] == tuple(sorted(group for product in products for group in groups[product]))


def test_a_name_of_several_products_is_in_a_fold_only_where_all_of_them_are() -> None:
    of_many = {name: groups for name, groups in GROUPS.items() if len(groups) > 1}
    fold_of_group = {GROUPS[name][0]: fold for name, fold in FOLDS.items() if len(GROUPS[name]) == 1}
    known = {name: groups for name, groups in of_many.items() if set(groups) <= fold_of_group.keys()}

    assert {name: FOLDS.get(name) for name in known} == {
        name: fold_of_group[groups[0]] if len({fold_of_group[group] for group in groups}) == 1 else None
        for name, groups in known.items()
    }
    assert of_many.keys() >= PRODUCTS - FOLDS.keys() != set()
    assert {FOLDS.get(name) for name in known} >= {None, "train"}


def test_what_stands_in_brackets_explains_one_product() -> None:
    assert product_groups(["OpenAS2 (EDI, gateway / relay)"]) == {"OpenAS2 (EDI, gateway / relay)": ("openas2",)}


@pytest.mark.parametrize("vendor", ["Linode", "Pulse Secure"])
def test_a_name_of_a_vendor_that_shares_no_word_with_it_is_known(vendor: str) -> None:
    groups = product_groups([vendor, "Akamai", "Ivanti Connect Secure"])

    assert sorted(groups.values()).count(groups[vendor]) == 2


def test_no_first_word_stands_in_two_folds() -> None:
    folds = defaultdict(set)
    for product, fold in FOLDS.items():
        if len(GROUPS[product]) == 1:
            named = re.sub(r"\([^)]*\)", "", product).split(" / ")[0]
            folds[telling_words(named)[0]].add(fold)

    assert {word: where for word, where in folds.items() if len(where) > 1} == {}


def test_a_word_behind_one_vendor_joins_and_behind_several_says_what_a_thing_is() -> None:
    one = product_groups(["Apache Solr", "Solr", "Apache Kafka"])
    several = product_groups(["Acme Zorp", "Initech Zorp", "Zorp"])

    assert set(one.values()) == {("apache",)}
    assert several == {"Acme Zorp": ("acme",), "Initech Zorp": ("initech",), "Zorp": ("zorp",)}


def test_a_word_that_begins_no_name_joins_nothing() -> None:
    groups = product_groups(["Acme Turbo", "Initech Turbo Two"])

    assert groups == {"Acme Turbo": ("acme",), "Initech Turbo Two": ("initech",)}


def test_a_word_for_a_kind_of_thing_joins_nothing() -> None:
    assert len(set(product_groups(["Docker Registry", "npm registry", "Kong Gateway", "Citrix Gateway"]).values())) == 4


def test_groups_stay_vendors_and_do_not_run_together() -> None:
    apart = ("microsoft", "aws", "google", "cisco", "apache", "oracle", "kubernetes", "hashicorp", "macos", "github")
    sizes = {group: sum(group in mine for mine in GROUPS.values()) for mine in GROUPS.values() for group in mine}

    assert set(apart) <= set(sizes)
    assert max(sizes.values()) == sizes["microsoft"] < 0.08 * len(PRODUCTS)


def test_a_name_of_words_that_say_little_is_a_group_of_its_own() -> None:
    assert product_groups(["Generic web server", "389 Directory Server"]) == {
        "Generic web server": ("generic web server",),
        "389 Directory Server": ("389 directory server",),
    }


@pytest.mark.parametrize("newcomer", ["{} zzz", "Aaa {}"])
def test_a_newcomer_to_a_group_renames_no_group(newcomer: str) -> None:
    names = sorted({group for groups in GROUPS.values() for group in groups})
    for group in names[::150]:
        again = product_groups(PRODUCTS | {newcomer.format(group)})

        assert {product: again[product] for product in PRODUCTS} == GROUPS


def test_a_newcomer_that_begins_as_a_group_is_called_is_in_it() -> None:
    names = sorted({group for groups in GROUPS.values() for group in groups if group.isalpha()})[::150]
    newcomers = {f"{group} zzz": (group,) for group in names}

    assert newcomers.items() <= product_groups(PRODUCTS | newcomers.keys()).items()


def test_the_groups_do_not_depend_on_the_order_of_the_names() -> None:
    assert product_groups(sorted(PRODUCTS, reverse=True)) == GROUPS
