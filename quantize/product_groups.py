"""Which products must share a fold: those that share a word that tells, or a vendor."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path


def product_groups(products: Iterable[str]) -> dict[str, str]:
    """Return the name of every product's group.

    `Apache Solr` and `Solr` are one product, `Fortinet FortiGate` and `Fortinet FortiWeb` write alike, and
    `Tanium / osquery` is both. Joining too many costs a little balance; joining too few costs the test its meaning:
    a word joins unless `product_words.toml` lists it as one that says little.
    """
    words = {product: telling_words(product) for product in sorted(set(products))}
    leader = {word: word for all_of_one in words.values() for word in all_of_one}

    def led_by(word: str) -> str:
        while leader[word] != word:
            word = leader[word]
        return word

    for first, *others in words.values():
        for other in others:
            leader[led_by(other)] = led_by(first)
    # A group is called after the word that most of its names hold, then begin with: a newcomer seldom changes that.
    held = Counter(word for all_of_one in words.values() for word in set(all_of_one))
    begun = Counter(all_of_one[0] for all_of_one in words.values())
    name: dict[str, str] = {}
    for word in sorted(leader, key=lambda word: (-held[word], -begun[word], word)):
        name.setdefault(led_by(word), word)
    return {product: name[led_by(all_of_one[0])] for product, all_of_one in words.items()}


def telling_words(product: str) -> tuple[str, ...]:
    """Return the words that join, in order and by the vendor's name; a name of nothing else counts whole."""
    name = product.casefold()
    words = [word for word in re.findall(r"[a-z0-9]+", name) if len(word) > 1 and not word.isdigit()]
    telling = [word for word in words if word not in _SAY_LITTLE] or [name]
    return tuple(_VENDOR.get(word, word) for word in telling)


_LISTS = tomllib.loads(Path(__file__).with_name("product_words.toml").read_text(encoding="utf-8"))
_SAY_LITTLE = frozenset(_LISTS["say_little"].split())
_VENDOR: dict[str, str] = _LISTS["names"] | {
    word: vendor for vendor, words in _LISTS["vendors"].items() for word in words.split()
}
