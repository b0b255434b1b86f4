import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from dataflows.running.policy import policy_in_force
from dataflows.sections import PolicySection
from edge.config import Config
from models.contracts.errors import ConfigError
from models.contracts.policy import CacheRules, Policy
from models.contracts.release import Release
from models.contracts.task import Label, Task

RELEASE = Release(
    name="soc-triage",
    number=1,
    task=Task(
        name="soc-triage",
        instruction="Judge.",
        labels=(Label("benign", "harmless"), Label("critical", "not")),
        default_label="benign",
    ),
    policy=Policy(number=1, accept_at=0.7),
)


def in_force(config: Config, release: Release) -> Policy:
    return policy_in_force(config.policy, config.policy_file, release)


def test_the_file_wins_over_the_configuration_and_that_over_the_release(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('number = 3\naccept_at = 0.95\ndoubtful = "escalated"\n')
    own = PolicySection(number=2, accept_at=0.5)
    assert in_force(Config(), RELEASE) == RELEASE.policy
    assert in_force(Config(policy=own), RELEASE) == Policy(number=2, accept_at=0.5)
    assert in_force(Config(policy=own, policy_file=str(file)), RELEASE) == Policy(
        number=3, accept_at=0.95, doubtful="escalated"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accept_att = 0.9", r"policy\.toml: Object contains unknown field `accept_att`"),
        ("accept_at = 1.5", r"policy\.toml: Expected `float` <= 1\.0 - at `\$\.accept_at`"),
        (
            "accept_at_by_label = { evil = 0.9 }",
            r"`accept_at_by_label`: found `evil`, wanted one of \['benign', 'critical'\]",
        ),
        (
            '[[when]]\ncontext = { zone = "lab" }\naccept_at_by_label = { evil = 0.9 }',
            r"`accept_at_by_label`: found `evil`, wanted one of \['benign', 'critical'\]",
        ),
        ("number = ", r"policy\.toml: "),
        (
            'cache.known_addresses = ["10.0.0.1", "203.0.113.0/24"]',
            r"policy\.toml: `cache\.known_addresses`: found `203\.0\.113\.0/24`, wanted single addresses",
        ),
    ],
)
def test_a_bad_policy_is_refused_with_file_key_found_and_wanted(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        in_force(Config(policy_file=str(file)), RELEASE)


@pytest.mark.parametrize("known", ["203.0.113.0/24", "203.0.113", "203.0.113.007", "jump-host", "", " 10.0.0.1"])
def test_a_known_address_that_would_mask_nothing_otherwise_is_refused(known: str) -> None:
    own = PolicySection(cache=CacheRules(known_addresses=("203.0.113.9", known)))
    with pytest.raises(ConfigError, match=f"`policy`: `cache.known_addresses`: found `{re.escape(known)}`, wanted"):
        in_force(Config(policy=own), RELEASE)


def test_known_addresses_are_read_however_they_are_written() -> None:
    own = CacheRules(known_addresses=("203.0.113.9", "2001:DB8:0::1", "::1"))
    assert in_force(Config(policy=PolicySection(cache=own)), RELEASE).cache == own


def test_what_is_said_of_the_cache_leaves_the_thresholds_that_were_measured(tmp_path: Path) -> None:
    measured = replace(RELEASE, policy=Policy(accept_at=0.7, accept_at_by_label={"benign": 0.95}, mass_floor=0.5))
    file = tmp_path / "policy.toml"
    file.write_text("number = 2\n[cache]\nenabled = false\n")
    wanted = replace(measured.policy, number=2, cache=CacheRules(enabled=False))
    of_section = PolicySection(number=2, cache=CacheRules(enabled=False))

    assert in_force(Config(policy=of_section), measured) == wanted
    assert in_force(Config(policy_file=str(file)), measured) == wanted


@pytest.mark.parametrize(
    ("said", "thresholds"),
    [
        (PolicySection(accept_at=0.6), (0.6, {}, 0.0)),
        (PolicySection(accept_at_by_label={"critical": 0.9}), (0.8, {"critical": 0.9}, 0.0)),
        (PolicySection(mass_floor=0.1), (0.8, {}, 0.1)),
        (PolicySection(doubtful="escalated"), (0.7, {"benign": 0.95}, 0.5)),
    ],
)
def test_who_says_one_threshold_has_none_of_the_releases_beside_it(
    said: PolicySection, thresholds: tuple[object, ...]
) -> None:
    measured = replace(RELEASE, policy=Policy(accept_at=0.7, accept_at_by_label={"benign": 0.95}, mass_floor=0.5))
    policy = in_force(Config(policy=said), measured)

    assert (policy.accept_at, policy.accept_at_by_label, policy.mass_floor) == thresholds


def test_a_missing_policy_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml: cannot be read"):
        in_force(Config(policy_file=str(tmp_path / "gone.toml")), RELEASE)
