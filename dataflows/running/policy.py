"""Which policy is in force: the release's own, but for what the operator's file says, or else the configuration."""

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import structlog
from msgspec import UNSET
from msgspec.structs import asdict, replace

from dataflows.sections import PolicySection
from models.classifier import Current
from models.contracts.errors import ConfigError
from models.contracts.policy import NEVER, Policy
from models.contracts.release import Release
from models.contracts.wire import decode_toml

_THRESHOLDS = frozenset(("accept_at", "accept_at_by_label", "mass_floor"))
_PLAIN = Policy()

log = structlog.get_logger()


def policy_in_force(said: PolicySection, policy_file: str, release: Release) -> Policy:
    """Read and check it; called at start and again on SIGHUP, with the configuration as it is then.

    Raises:
        ConfigError: the file, the key, what was found and what is wanted.
    """
    where = "`policy`"
    if policy_file:
        where = policy_file
        try:
            text = Path(where).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"{where}: cannot be read: {why}; mend `policy_file`, or leave it out") from error
        said = decode_toml(text, PolicySection, where)
    policy = _with(said, release.policy)
    for by_label in (policy.accept_at_by_label, *(rule.accept_at_by_label for rule in policy.when)):
        unknown = sorted(set(by_label) - set(release.task.label_names))
        if unknown:
            raise ConfigError(
                f"{where}: `accept_at_by_label`: found `{unknown[0]}`, wanted one of {list(release.task.label_names)}"
            )
    for address in policy.cache.known_addresses:
        try:
            ip_address(address)
        except ValueError as error:
            raise ConfigError(
                f"{where}: `cache.known_addresses`: found `{address}`, wanted single addresses such as `203.0.113.9`; "
                "networks are not supported, list their addresses"
            ) from error
    return policy


def renew(current: Current[Policy], read: Callable[[], Policy]) -> None:
    """Put the policy in force that is read now, if it is sound and newer; say in the log what became of it."""
    before = current.get()
    try:
        policy = read()
    except ConfigError as error:
        log.warning("policy_refused", reason=str(error), action=f"kept policy {before.number}")
        return
    if policy == before:
        log.info("policy_unchanged", number=before.number)
    elif policy.number <= before.number:
        # Verdicts carry nothing but the number: under one, there can be but one policy.
        log.warning(
            "policy_refused",
            reason=f"it differs from number {before.number}, in force, and has `number` {policy.number}; raise it",
            action=f"kept policy {before.number}",
        )
    else:
        current.replace(policy)
        log.info("policy_replaced", before=before.number, now=policy.number)


def _with(said: PolicySection, own: Policy) -> Policy:
    """Return the release's policy with what was said instead.

    Thresholds are one thing: who says one of them means his own, and none of the release's beside it.
    """
    given: dict[str, Any] = {name: value for name, value in asdict(said).items() if value is not UNSET}
    if not _THRESHOLDS.isdisjoint(given):
        given = {name: getattr(_PLAIN, name) for name in _THRESHOLDS} | given
    return replace(own, **given)


def in_words(policy: Policy) -> str:
    """Say from where on each label is accepted; `never` is what a threshold of 1 means."""
    thresholds = [_threshold(policy.accept_at)]
    thresholds += [f"`{label}` {_threshold(at)}" for label, at in sorted(policy.accept_at_by_label.items())]
    words = f"number {policy.number}: accepted {', '.join(thresholds)}"
    if policy.mass_floor:
        words += f", and with a label mass from {policy.mass_floor}"
    return f"{words}; else {policy.doubtful}"


def _threshold(accept_at: float) -> str:
    return "never" if accept_at >= NEVER else f"from {accept_at}"
