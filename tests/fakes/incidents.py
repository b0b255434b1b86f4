"""Incidents: one that is usual."""

from typing import Any

from models.contracts.incident import Incident
from tests.fakes.verdicts import verdict


def incident(**changed: Any) -> Incident:
    return Incident(
        **{
            "id": "logins/203.0.113.9/o.1",
            "rule": "logins",
            "key": "203.0.113.9",
            "revision": 2,
            "state": "open",
            "first_ms": 1_700_000_000_000,
            "last_ms": 1_700_000_060_000,
            "count": 3,
            "late": 0,
            "labels": {"suspicious": 2, "critical": 1},
            "gateways": ("gw-1",),
            "verdicts": (
                verdict(id="o.1", label="suspicious", text="Failed password for root"),
                verdict(id="o.2", label="critical", text="Accepted password for root", gateway="gw-1"),
                verdict(id="o.3", label="suspicious", text="Failed password for admin"),
            ),
            "more": (),
            "unnamed": 0,
        }
        | changed
    )
