"""A cache that was kept is read as it was written, or not at all."""

import pytest
from msgspec.structs import replace

from dataflows.cache.snapshot import Made, Snapshot, decode, encode
from models.contracts.errors import InputError
from models.contracts.opinion import Opinion
from models.contracts.policy import CacheRules
from models.contracts.release import Prompt, Release
from tests.fakes.answering import GRAVE_TASK, Answering
from tests.fakes.classifier import TASK, release

SECRET = b"s" * 32


def snapshot() -> Snapshot:
    """One that has all there is: an entry that answers with fields, one that learns, and a refusal."""
    said = Opinion(probabilities=(0.0, 0.1, 0.9), label_mass=1.0, fields={"source": ("10.0.0.1",)})
    taught = Answering(lambda text: said if "10.0.0.1" in text else by_number(text), task=GRAVE_TASK, ask_first_grave=1)
    taught.say("é from 10.0.0.1", "job 12345", "run 12345", "run 66666")
    return Snapshot(made(rules=taught.policy.cache), list(taught.cache.listing()), taught.cache.refusals())


def made(
    sha256: str = "abc", own: Release | None = None, context_tokens: int = 1024, rules: CacheRules | None = None
) -> Made:
    return Made.under(sha256, own or release(), context_tokens, rules or CacheRules())


def by_number(text: str) -> Opinion:
    wrong = 0.95 if "66666" in text else 0.02
    return Opinion(probabilities=(1.0 - wrong, wrong, 0.0), label_mass=0.9)


def test_a_snapshot_is_read_as_it_was_written() -> None:
    kept = snapshot()

    assert [entry.answers for _, entry in kept.entries] == [True, False]
    assert [refusal.reason for _, refusal in kept.refusals] == ["the answers differ"]
    assert decode(encode(kept, SECRET), SECRET) == kept


def test_a_snapshot_in_which_any_byte_is_another_is_not_believed() -> None:
    data = encode(snapshot(), SECRET)

    for at in range(len(data)):
        with pytest.raises(InputError):
            decode(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], SECRET)


def test_a_snapshot_that_was_cut_or_has_more_behind_it_is_not_believed() -> None:
    data = encode(snapshot(), SECRET)

    for at in range(len(data)):
        with pytest.raises(InputError):
            decode(data[:at], SECRET)
    with pytest.raises(InputError, match="digest"):
        decode(data + b"\0", SECRET)


def test_a_snapshot_of_another_gateway_is_not_believed() -> None:
    with pytest.raises(InputError, match="not as this gateway wrote it"):
        decode(encode(snapshot(), SECRET), b"t" * 32)


def test_a_snapshot_of_another_version_says_so() -> None:
    with pytest.raises(InputError, match="another version"):
        decode(b"headwater-cache/1\n" + encode(snapshot(), SECRET)[18:], SECRET)


def test_what_was_made_under_other_terms_differs() -> None:
    terms = [
        made(),
        made("abd"),
        made(own=release(task=replace(TASK, labels=TASK.labels[::-1]))),
        made(own=release(task=replace(TASK, instruction="Judge."))),
        made(own=replace(release(), prompt=Prompt(kind="chat", before="Read this."))),
        made(context_tokens=2048),
        made(rules=CacheRules(masks=("address",))),
        made(rules=CacheRules(known_addresses=("10.0.0.1",))),
    ]

    assert len({repr(each) for each in terms}) == len(terms)
    assert made(own=release(), rules=CacheRules(audit_rate=0.5)) == terms[0]
