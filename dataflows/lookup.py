"""What is known of hosts and addresses: tables that are replaced whole, their age, and what to do when one is old.

A table answers by the key itself, or by the smallest network that an address is in. Nothing here does I/O: whoever has
a source (`central/lookups.py`) puts its tables here, and says when the source still says the same.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_network
from time import monotonic
from typing import Literal, Protocol

from msgspec import Struct

from dataflows.addresses import Address, read_address
from models.classifier import Current
from models.contracts.errors import InputError, UnavailableError

Facts = Mapping[str, str]
State = Literal["fresh", "stale", "away"]

_LONGEST_VALUE = 256  # characters


class Lookup(Protocol):
    """What is known, by table and key. Does no I/O."""

    def state(self, table: str) -> State:
        """Return whether a table is `fresh`; or `stale`, and to be used all the same; or `away`, and not to be used.

        Raises:
            UnavailableError: it is neither fresh nor to be done without; ask again later.
        """

    def find(self, table: str, key: str) -> Facts | None:
        """Return what a table knows of a key; None where it knows nothing."""


class Table:
    """Facts by key. Of two rows with one key the later stands; upper and lower case are one; values are cut."""

    def __init__(self, rows: Iterable[tuple[str, Facts]], most_rows: int) -> None:
        """Take rows in. A key may be an address or a network.

        Raises:
            InputError: there are more than `most_rows`.
        """
        self._by_key: dict[str, Facts] = {}
        self._by_network: dict[tuple[int, int], dict[int, Facts]] = defaultdict(dict)
        for number, (key, facts) in enumerate(rows, 1):
            if number > most_rows:
                raise InputError(f"more than {most_rows} rows, which is the most; raise `most_rows`, or ask for fewer")
            cut = {name: value[:_LONGEST_VALUE] for name, value in facts.items()}
            address = read_address(key)
            network = None if address is None and "/" not in key else _network(key if address is None else str(address))
            if network is None:
                self._by_key[key.lower()] = cut
            else:
                version, prefix, bits = network
                self._by_network[version, prefix][bits] = cut
        self._prefixes: dict[int, list[int]] = {
            version: sorted((prefix for each, prefix in self._by_network if each == version), reverse=True)
            for version in (4, 6)
        }

    def __len__(self) -> int:
        return len(self._by_key) + sum(map(len, self._by_network.values()))

    def find(self, key: str) -> Facts | None:
        """Return the facts of a key; None where there are none."""
        found = self._by_key.get(key.lower())
        if found is not None or not self._by_network:
            return found
        address = read_address(key)
        return None if address is None else self._of_address(address)

    def _of_address(self, address: Address) -> Facts | None:
        number, length = int(address), address.max_prefixlen
        for prefix in self._prefixes[address.version]:
            found = self._by_network[address.version, prefix].get(number >> (length - prefix))
            if found is not None:
                return found
        return None


def _network(written: str) -> tuple[int, int, int] | None:
    """Return version, prefix length and prefix of a network; None for what is none."""
    try:
        network = ip_network(written, strict=False)
    except ValueError:
        return None
    return (
        network.version,
        network.prefixlen,
        int(network.network_address) >> (network.max_prefixlen - network.prefixlen),
    )


class Freshness(Struct, frozen=True, kw_only=True):
    """How old a table may be, by when its source last said so, and what to do beyond that.

    `keep`: what it says is used all the same, and marked. `without`: events go on without it, and are marked. `wait`:
    the flow waits for the source.
    """

    fresh_s: float
    when_stale: Literal["keep", "without", "wait"]


class Known(Struct, frozen=True):
    """A table, and when its source last said that so it is."""

    table: Table
    said_at: float


class Tables:
    """Several tables under their names. One thread puts each; any may ask."""

    def __init__(self, freshness: Mapping[str, Freshness], clock: Callable[[], float] = monotonic) -> None:
        self._freshness = dict(freshness)
        self._clock = clock
        self._known: dict[str, Current[Known | None]] = {name: Current(None) for name in freshness}

    def put(self, name: str, table: Table) -> None:
        """Have a table as its source says it now."""
        self._known[name].replace(Known(table, self._clock()))

    def confirm(self, name: str) -> None:
        """Have a table as it was: its source says now that it still is so."""
        known = self._known[name].get()
        if known is not None:
            self.put(name, known.table)

    def age_s(self, name: str) -> float | None:
        """Return how long ago the source last said how things are; None where it never did."""
        known = self._known[name].get()
        return None if known is None else self._clock() - known.said_at

    def state(self, table: str) -> State:
        freshness, age_s = self._freshness[table], self.age_s(table)
        if age_s is not None and age_s <= freshness.fresh_s:
            return "fresh"
        if freshness.when_stale == "wait":
            found = "nothing" if age_s is None else f"what was so {age_s:.0f} s ago"
            raise UnavailableError(f"lookup {table}: found {found}, wanted at most {freshness.fresh_s:g} s ago; waited")
        return "away" if age_s is None or freshness.when_stale == "without" else "stale"

    def find(self, table: str, key: str) -> Facts | None:
        known = self._known[table].get()
        return None if known is None else known.table.find(key)
