"""Tables answer by key and by network, and say how old they are."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.lookup import Facts, Freshness, Table, Tables
from models.contracts.errors import InputError, UnavailableError

TABLE = Table([("web-1", {"zone": "dmz"})], 10)


def table(*keys: str) -> Table:
    """A table in which every key knows itself."""
    return Table([(key, {"key": key}) for key in keys], 1000)


def key_of(found: Facts | None) -> str | None:
    return None if found is None else found["key"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("web-1", "WEB-1"),
        ("Web-1", "WEB-1"),
        ("web-2", None),
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("10.1.2.4", "10.1.0.0/16"),
        ("10.2.0.1", "10.0.0.0/8"),
        ("11.0.0.1", None),
        ("2001:DB8::1", "2001:db8::/32"),
        ("2001:db9::1", None),
        ("10.1.2", None),
    ],
)
def test_a_key_is_found_as_it_is_or_by_the_smallest_network_around_it(asked: str, found: str | None) -> None:
    known = table("10.0.0.0/8", "WEB-1", "10.1.0.0/16", "10.1.2.3", "2001:db8::/32")

    assert key_of(known.find(asked)) == found


def test_a_network_around_everything_is_one_like_others() -> None:
    assert key_of(table("0.0.0.0/0").find("203.0.113.9")) == "0.0.0.0/0"


def test_a_key_that_only_looks_like_a_network_is_a_key() -> None:
    assert key_of(table("eth0/1").find("ETH0/1")) == "eth0/1"


def test_of_two_rows_with_one_key_the_later_stands() -> None:
    known = Table([("a", {"zone": "old"}), ("A", {"zone": "new"})], 10)

    assert (known.find("a"), len(known)) == ({"zone": "new"}, 1)


def test_more_rows_than_agreed_are_no_table() -> None:
    with pytest.raises(InputError, match="more than 2 rows"):
        Table([(str(number), {}) for number in range(3)], 2)


def test_values_are_cut() -> None:
    assert Table([("a", {"owner": "x" * 10_000})], 1).find("a") == {"owner": "x" * 256}


networks = st.tuples(st.ip_addresses(v=4), st.integers(0, 32)).map(lambda at: str(ip_network(at, strict=False)))


@given(st.lists(networks, max_size=20), st.ip_addresses(v=4))
def test_no_network_that_is_found_has_a_smaller_one_around_the_address(written: list[str], asked: object) -> None:
    address = ip_address(str(asked))
    around = [network for network in map(ip_network, written) if address in network]
    smallest = max(around, key=lambda network: network.prefixlen, default=None)

    assert key_of(table(*written).find(str(address))) == (None if smallest is None else str(smallest))


class Aged:
    """Tables with a clock of their own."""

    def __init__(self, when_stale: str) -> None:
        self.now = 100.0
        freshness = Freshness(fresh_s=60.0, when_stale=when_stale)  # type: ignore[arg-type]
        self.tables = Tables({"assets": freshness}, lambda: self.now)

    def state(self) -> str:
        return self.tables.state("assets")


@pytest.mark.parametrize(("when_stale", "old"), [("keep", "stale"), ("without", "away")])
def test_a_table_is_fresh_for_so_long_and_then_what_the_operator_chose(when_stale: str, old: str) -> None:
    aged = Aged(when_stale)
    before = aged.state()
    aged.tables.put("assets", TABLE)
    aged.now += 60
    fresh = aged.state()
    aged.now += 1

    assert (before, fresh, aged.state()) == ("away", "fresh", old)


def test_a_table_that_is_to_be_waited_for_says_so_with_its_age() -> None:
    aged = Aged("wait")
    with pytest.raises(UnavailableError, match="lookup assets: found nothing, wanted at most 60 s ago"):
        aged.state()
    aged.tables.put("assets", TABLE)
    assert aged.state() == "fresh"
    aged.now += 61
    with pytest.raises(UnavailableError, match="found what was so 61 s ago"):
        aged.state()


def test_a_source_that_says_that_all_is_as_it_was_makes_a_table_young_again() -> None:
    aged = Aged("keep")
    aged.tables.confirm("assets")
    assert aged.state() == "away"
    aged.tables.put("assets", TABLE)
    aged.now += 61
    aged.tables.confirm("assets")

    assert (aged.state(), aged.tables.find("assets", "web-1")) == ("fresh", {"zone": "dmz"})
