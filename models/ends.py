"""Where a text that is too long is cut: its two ends are kept, and no word is halved that need not be. Pure.

Who speaks stands at the front, and how it ended at the back.
"""

from collections.abc import Callable, Mapping, Sequence

_WORD = 64  # what is looked through for the end of a word; a longer one is cut
# What a value may hold inside a word (`models/fields.py`), and what joins two words to one.
_IN_WORDS = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.-" + bytes(range(0x80, 0x100)))


def ends_of_text(text: str, limit: int) -> list[str]:
    """Return a text of at most `limit` characters, or its two ends."""
    if len(text) <= limit:
        return [text]
    head, tail = _cut(len(text), limit, lambda at: text[at].encode("utf-8", "replace"))
    return [text[:head], text[tail:]]


def ends_of_tokens(tokens: Sequence[int], limit: int, pieces: Sequence[bytes] | Mapping[int, bytes]) -> list[list[int]]:
    """Return at most `limit` tokens, or the two ends of more; the bytes of each are in `pieces`."""
    if len(tokens) <= limit:
        return [list(tokens)]
    head, tail = _cut(len(tokens), limit, lambda at: pieces[tokens[at]])
    return [list(tokens[:head]), list(tokens[tail:])]


def _cut(size: int, limit: int, piece: Callable[[int], bytes]) -> tuple[int, int]:
    """Return where the head ends and where the tail begins."""

    def is_between_words(at: int) -> bool:
        before, behind = piece(at - 1), piece(at)
        return not (before and behind and before[-1] in _IN_WORDS and behind[0] in _IN_WORDS)

    head, tail = limit - limit // 2, size - limit // 2
    heads = range(head, max(head - _WORD, 0), -1)
    tails = range(tail, min(tail + _WORD, size))
    return next(filter(is_between_words, heads), head), next(filter(is_between_words, tails), tail)
