"""Verdicts: one that is usual, and any at all."""

from typing import Any

from hypothesis import strategies as st

from models.contracts.policy import ROUTES
from models.contracts.scalars import EventId
from models.contracts.verdict import Verdict

_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
# Texts with what formats trip over more often than chance would have it.
_TEXTS = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from('\\"]|=[\n\r\0 \x85\u2028')), max_size=200)


def verdict(**changed: Any) -> Verdict:
    return Verdict(
        **{
            "id": EventId("o.1"),
            "text": "Failed password for root",
            "label": "critical",
            "confidence": 0.95,
            "probabilities": {"benign": 0.02, "suspicious": 0.03, "critical": 0.95},
            "label_mass": 0.99,
            "fields": {},
            "route": "accepted",
            "release": "soc-triage-1",
            "policy": 1,
            "source": "hosts",
            "received_at_ms": 1_700_000_000_123,
            "host": "web-1",
            "app": "sshd",
        }
        | changed
    )


def any_verdict() -> st.SearchStrategy[Verdict]:
    return st.builds(
        Verdict,
        id=_TEXTS.map(EventId),
        text=_TEXTS,
        label=_NAMES,
        confidence=st.floats(0, 1),
        probabilities=st.just({}),
        label_mass=st.floats(0, 1),
        fields=st.dictionaries(_NAMES, st.lists(_TEXTS, max_size=2).map(tuple), max_size=2),
        route=st.sampled_from(ROUTES),
        release=_NAMES,
        policy=st.integers(1, 1000),
        source=_NAMES,
        received_at_ms=st.integers(0, 4_102_444_800_000),
        occurred_at_ms=st.none() | st.integers(0, 4_102_444_800_000),
        host=st.none() | _TEXTS,
        app=st.none() | _TEXTS,
        topic=st.none() | _TEXTS,
        truncated=st.booleans(),
        replaced=st.booleans(),
    )
