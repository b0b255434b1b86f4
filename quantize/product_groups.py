"""Which products must share a fold: those that share a word that tells, or a vendor."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path


def product_groups(products: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the names of every product's groups, which is one but for a name of several products (`nginx / Apache`).

    `Fortinet FortiGate` and `Fortinet FortiWeb` write alike: names that begin with one word are of one vendor.
    `Apache Solr` and `Solr` are one product: so are names of which one begins with a word that stands behind one other
    first word only; behind several it says what a thing is, as `scanner` does. `product_words.toml` lists words that
    say little, and vendors by other names. A name of several products joins none of them: one such name is no reason
    to hold out two vendors together.
    """
    parts = {product: _parts_of(product) for product in sorted(set(products))}
    words = {
        part: telling_words(part) for part in sorted({part for all_of_one in parts.values() for part in all_of_one})
    }
    behind: dict[str, set[str]] = {}
    for first, *others in words.values():
        for other in others:
            behind.setdefault(other, set()).add(first)
    alone = {first for first, *_ in words.values()}
    words = {
        part: (first, *(other for other in others if other in alone and len(behind[other] - {other}) == 1))
        for part, (first, *others) in words.items()
    }
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
    return {
        product: tuple(sorted({name[led_by(words[part][0])] for part in all_of_one}))
        for product, all_of_one in parts.items()
    }


def telling_words(product: str) -> tuple[str, ...]:
    """Return the words that join, in order and by the vendor's name; a name of nothing else counts whole."""
    name = product.casefold()
    words = [word for word in re.findall(r"[a-z0-9]+", name) if len(word) > 1 and not word.isdigit()]
    telling = [word for word in words if word not in _SAY_LITTLE] or [name]
    return tuple(_VENDOR.get(word, word) for word in telling)


def _parts_of(product: str) -> tuple[str, ...]:
    """Return the products that a name joins; what stands in brackets explains one, behind `on` its place."""
    named = _PLACE.split(_BRACKETS.sub("", product).strip())[0] or product
    return tuple(part.strip() for part in _JOINTS.split(named) if part.strip()) or (product,)


_BRACKETS = re.compile(r"\([^)]*\)")
_PLACE = re.compile(r"\s+(?:on|for|in|via|from|with|by|at)\s+", re.IGNORECASE)
_JOINTS = re.compile(r"\s*/\s*|\s+and\s+|\s*,\s*|\s*\+\s+")

_LISTS = tomllib.loads(Path(__file__).with_name("product_words.toml").read_text(encoding="utf-8"))
_SAY_LITTLE = frozenset(_LISTS["say_little"].split())
_VENDOR: dict[str, str] = _LISTS["names"] | {
    word: vendor for vendor, words in _LISTS["vendors"].items() for word in words.split()
}
