import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dataflows.addresses import Address, addresses_in


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Failed password for root from 203.0.113.9 port 4022 ssh2", ["203.0.113.9"]),
        ("blocked 198.51.100.7:51234 -> 10.0.0.5:443.", ["198.51.100.7", "10.0.0.5"]),
        ("src=[2001:DB8:0:0::9] dst=2001:db8::a", ["2001:db8::9", "2001:db8::a"]),
        ("from ::ffff:203.0.113.9.", ["203.0.113.9"]),
        ("once 10.0.0.5, twice 10.0.0.5", ["10.0.0.5"]),
        ('{"ip":"10.0.0.5"}', ["10.0.0.5"]),
        ("it came from 10.0.0.5.", ["10.0.0.5"]),
        ("fe80::1%eth0 asked", ["fe80::1"]),
        ("Chrome/120.0.6099.129 at 12:34:56, de:ad:be:ef:00:01", []),
        ("v1.2.3.4 1.2.3.4.5 1.2.3.4a 999.1.1.1 std::vector", []),
        ("bound to 0.0.0.0 and ::, which is ::ffff:0:0", []),
    ],
)
def test_addresses_are_found_in_one_spelling_and_nothing_else_is(text: str, found: list[str]) -> None:
    assert list(addresses_in(text)) == found


@given(st.ip_addresses(), st.sampled_from([" ", '"', "[", "=", "("]))
def test_every_address_is_found_however_it_is_written(address: Address, before: str) -> None:
    assume(not ((address.version == 6 and address.ipv4_mapped) or address).is_unspecified)
    written = address.exploded

    assert list(addresses_in(f"x{before}{written} y")) == list(addresses_in(f"x{before}{address} y")) != []


def test_a_list_of_addresses_is_read_so_far_and_no_further() -> None:
    assert len(list(addresses_in(" ".join(f"10.0.0.{n}" for n in range(1, 200))))) == 16


@pytest.mark.parametrize("piece", ["1.", ":", "1:", "aaaa:", "1.1.1.", "::1 "])
def test_a_text_that_is_almost_an_address_everywhere_takes_no_long_time(piece: str) -> None:
    assert list(addresses_in(piece * 20_000)) in ([], ["::1"])
