"""The addresses that stand in a text, in one spelling each. Pure."""

import re
from collections.abc import Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address

_COLONS = 7  # in an address of version 6 that leaves no zeros out
_REMEMBERED = 8192  # addresses repeat themselves, and to read one takes longer than to find it
_MOST = 16  # of one text; a list of addresses says nothing about one of them
# Each begins with a set of characters and looks back only then: `re` leaps to the next of a set.
_IP4 = r"[0-9](?<![\w.:].)[0-9]{0,2}+(?:\.[0-9]{1,3}+){3}(?!\.?\w)"  # a full stop may follow, and so may a port
_IP6 = (
    r"[0-9A-Fa-f:](?<![\w.:].)(?:(?<=:):(?:[Ff]{4}:)?[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?!\.?\w)"
    r"|[0-9A-Fa-f]{0,3}+(?::[0-9A-Fa-f]{0,4}+){1,7}(?![\w:]|\.\w))"
)
_VERSION_4 = re.compile(_IP4, re.ASCII)
_BOTH = re.compile(f"{_IP4}|{_IP6}", re.ASCII)


@lru_cache(maxsize=_REMEMBERED)
def read_address(written: str) -> Address | None:
    """Return an address; of an IPv4 address in the clothes of IPv6 the former, and None for anything else."""
    try:
        address = ip_address(written)
    except ValueError:
        return None
    return (address.version == 6 and address.ipv4_mapped) or address


def addresses_in(text: str) -> Iterator[str]:
    """Yield the addresses in a text in the order in which they stand there, each once, sixteen at most."""
    seen: set[str] = set()
    candidates = _BOTH if text.count(":") > 1 else _VERSION_4
    for found in candidates.findall(text):
        if ":" in found and "::" not in found and found.count(":") < _COLONS:  # a time: cheaper to see than to parse
            continue
        address = _spelt(found)
        if address is None or address in seen:
            continue
        seen.add(address)
        yield address
        if len(seen) == _MOST:
            return


@lru_cache(maxsize=_REMEMBERED)
def _spelt(written: str) -> str | None:
    """Return an address as it is usually written; None for one that is nobody's."""
    address = read_address(written)
    return None if address is None or address.is_unspecified else str(address)
