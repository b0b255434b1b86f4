"""Which policy is in force: the operator's file, else the configuration's, else the release's own."""

from ipaddress import ip_address
from pathlib import Path

from edge.config import Config
from models.contracts.errors import ConfigError
from models.contracts.policy import Policy
from models.contracts.release import Release
from models.contracts.wire import decode_toml


def policy_in_force(config: Config, release: Release) -> Policy:
    """Read and check it; called at start and again on SIGHUP, with the configuration as it is then.

    Raises:
        ConfigError: the file, the key, what was found and what is wanted.
    """
    if not config.policy_file:
        policy, where = (config.policy, "`policy`") if config.policy is not None else (release.policy, release.title)
    else:
        where = config.policy_file
        try:
            text = Path(where).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            said = getattr(error, "strerror", None) or error
            raise ConfigError(f"{where}: cannot be read: {said}; mend `policy_file`, or leave it out") from error
        policy = decode_toml(text, Policy, where)
    unknown = sorted(set(policy.accept_at_by_label) - set(release.task.label_names))
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
