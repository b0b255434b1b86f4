"""`python -m edge cache`, in front of a server at work and of a cache that was kept."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from dataflows.cache.snapshot import Made
from dataflows.running.cache_files import audit_secret, keep, read_kept, snapshot_path
from dataflows.sections import Model
from edge.control import ControlServer, socket_path
from edge.main import main
from models.classifier import Classifier, Current
from models.contracts.policy import CacheRules, Policy
from models.contracts.release import Release
from models.release_file import digest_of
from tests.fakes.caches import cache, logins, teach
from tests.fakes.classifier import CRITICAL, DOUBTFUL, ScriptedClassifier
from tests.fakes.tiny_models import RELEASE, TASK, tiny_decoder

POLICY = Policy()
STRANGE = "app: \x1b[2J\x9b31m[bold]\u202egpj.exe ⟨public address⟩ \ttab 198.51.100.7"
LOGIN = "<38>Jan  2 03:04:05 web-1 sshd[7]: Failed password for root from 203.0.113.9 port 51234"


HOLD = """
import sys
from pathlib import Path
from dataflows.running.state_lock import StateLock
lock = StateLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


class Bench:
    """A folder with a gateway's configuration and state, and what `edge cache` says there."""

    def __init__(self, directory: Path, model: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.model = model
        self.cache = cache(POLICY)
        self.config = directory / "edge.toml"
        self.configure()

    def configure(self, more: str = "") -> None:
        self.config.write_text(
            f'[gateway]\nstate_dir = "{self.state}"\n[model]\nrelease = "{self.model}"\n'
            f'[[sources]]\nkind = "mqtt"\nname = "devices"\ntopics = ["a"]\ntext_path = "m.text"\n{more}'
        )

    def say(self, *arguments: str, stdin: bytes = b"", **environment: str) -> Result:
        return CliRunner().invoke(
            main, ["cache", *arguments], input=stdin, env={"HEADWATER_CONFIG": str(self.config), **environment}
        )

    def keep(self, release: Release = RELEASE) -> None:
        """Leave the cache as a graceful stop does."""
        self.state.mkdir(exist_ok=True)
        made = Made.under(digest_of(self.model), release, Model().context_tokens, CacheRules())
        keep(self.cache, self.state, audit_secret(self.state), made)

    def name_of(self, words: str) -> str:
        known = [*self.cache.listing(), *self.cache.refusals()]
        (name,) = {found.name for key, found in known if words in key}
        return name


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_decoder(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture
def bench(tmp_path: Path, model: Path) -> Bench:
    made = Bench(tmp_path, model)
    teach(made.cache, *logins(30))
    teach(made.cache, *logins(2, user="admin"))
    teach(made.cache, "door 7 opened")
    teach(made.cache, "job 12345 ended")
    teach(made.cache, "job 12346 ended", opinion=CRITICAL)
    return made


@pytest.fixture
def serve(bench: Bench) -> Iterator[Callable[[], None]]:
    """Start what a running gateway has for the command."""
    with ExitStack() as running:

        def start(policy: Policy | None = None) -> None:
            bench.state.mkdir(exist_ok=True)
            classifier: Current[Classifier] = Current(ScriptedClassifier())
            server = ControlServer(bench.state, bench.cache, classifier, Current(policy or Policy()))
            running.callback(server.close)
            server.start()

        yield start


@pytest.fixture(params=["running", "kept"])
def somewhere(request: pytest.FixtureRequest, bench: Bench, serve: Callable[[], None]) -> Bench:
    """What holds of a gateway that runs as well as of what one has kept."""
    if request.param == "running":
        serve()
    else:
        bench.keep()
    return bench


def test_templates_come_with_tabs_and_the_names_of_the_fields_first(somewhere: Bench) -> None:
    done = somewhere.say()
    assert done.exit_code == 0
    names, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    found = [dict(zip(names, row, strict=True)) for row in rows]
    assert [(each["state"], each["label"], each["confidence"], each["template"]) for each in found] == [
        ("answers", "benign", "0.9000", "sshd: Failed password for root from ⟨public address⟩ port ⟨port for anyone⟩"),
        ("answers", "benign", "0.9000", "door 7 opened"),
        (
            "learning 2 of 3",
            "benign",
            "0.9000",
            "sshd: Failed password for admin from ⟨public address⟩ port ⟨port for anyone⟩",
        ),
        ("refused: the answers differ", "", "", "job ⟨5 digits⟩ ended"),
    ]
    assert int(found[0]["hits"]) + int(found[0]["audits"]) == 27
    assert found[0]["age_s"].isdecimal()
    assert 0.0 < float(found[0]["bound"]) <= 1.0
    assert [each["bound"] for each in found[1:]] == ["1.000000", "", ""]


def test_the_list_is_what_is_done_where_no_command_is_named(somewhere: Bench) -> None:
    assert somewhere.say("list").stdout == somewhere.say().stdout
    assert somewhere.say("list", "--refused").stdout == somewhere.say("--refused").stdout
    assert "explain" in somewhere.say("-h").stdout
    assert somewhere.say("explode").exit_code == 2


@pytest.mark.parametrize("command", [(), ("list",), ("explain",), ("forget",)])
def test_help_has_examples_and_exit_codes_and_needs_no_configuration(bench: Bench, command: tuple[str, ...]) -> None:
    bench.config.unlink()
    done = bench.say(*command, "--help")
    assert done.exit_code == 0
    assert "Examples:" in done.stdout
    assert not command or "Exits 0 when" in done.stdout


def test_json_lines_have_all_that_is_known_of_each_template(somewhere: Bench) -> None:
    records = [json.loads(line) for line in somewhere.say("--json").stdout.splitlines()]
    assert {record["state"] for record in records} == {"answers", "learning", "refused"}
    refused = records[-1]
    assert refused["name"] == somewhere.name_of("job")
    assert (refused["reason"], refused["template"]) == ("the answers differ", "job ⟨5 digits⟩ ended")
    assert "key" not in refused


def test_a_listing_may_be_short_and_of_the_refused_alone(somewhere: Bench) -> None:
    done = somewhere.say("--limit", "1")
    assert len(done.stdout.splitlines()) == 2
    assert "1 of 4 templates" in done.stderr
    done = somewhere.say("--refused", "--json")
    assert [json.loads(line)["state"] for line in done.stdout.splitlines()] == ["refused"]
    assert "templates" not in done.stderr
    assert somewhere.say("--limit", "0").exit_code == 2
    assert somewhere.say("--sort", "name").exit_code == 2


def test_a_terminal_gets_a_table_that_fits(somewhere: Bench) -> None:
    done = somewhere.say(FORCE_COLOR="1", COLUMNS="80", TERM="xterm")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines()
    assert done.stdout.count("\x1b[")
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["name", "label", "sure", "hits", "age", "audits", "last", "wrong", "≤", "state"]
    assert any("learning 2 of 3" in line for line in lines)
    assert any("refused: the" in line for line in lines)
    assert any(line.startswith("  sshd: Failed password for root from ⟨public address⟩") for line in lines)


@pytest.mark.parametrize("form", [(), ("--json",), ("on a terminal",)])
def test_no_template_steers_a_terminal_or_writes_a_mask(somewhere: Bench, form: tuple[str, ...]) -> None:
    somewhere.cache.forget()
    somewhere.cache.follow(RELEASE, POLICY)
    teach(somewhere.cache, STRANGE)
    if not socket_path(somewhere.state).exists():
        somewhere.keep()
    environment = {"FORCE_COLOR": "1", "COLUMNS": "200"} if form == ("on a terminal",) else {}
    said = somewhere.say(*(argument for argument in form if argument.startswith("--")), **environment).stdout
    assert "app: ·[2J·31m[bold]·gpj.exe ·public address· ·tab ⟨public address⟩" in said
    unstyled = re.sub(r"\x1b\[[0-9;]*m", "", said)
    assert [character for character in unstyled if not character.isprintable() and character not in "\n\t"] == []
    assert [line for line in said.splitlines() if "\x9b" in line or "\u202e" in line] == []


def test_no_event_steers_a_terminal_when_it_is_explained(somewhere: Bench) -> None:
    said = somewhere.say("explain", "-", stdin=STRANGE.encode()).stdout
    assert "app: ·[2J·31m[bold]·gpj.exe" in said
    assert [character for character in said if not character.isprintable() and character != "\n"] == []


def test_an_explanation_shows_what_is_masked_and_which_entry_answers_since_when(somewhere: Bench) -> None:
    lines = somewhere.say("explain", LOGIN).stdout.splitlines()
    assert lines[:4] == [
        "event     sshd: Failed password for root from 203.0.113.9 port 51234",
        "template  sshd: Failed password for root from ⟨public address⟩ port ⟨port for anyone⟩",
        "masked    public address   203.0.113.9",
        "          port for anyone  51234",
    ]
    name = somewhere.name_of("root")
    assert re.fullmatch(rf"answer    {name}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d: benign, confidence 0.90", lines[4])
    assert "of them, at 95 % confidence" in lines[6]


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (b"door 8 opened", "none: nothing is known of this template; the model is asked"),
        (b"job 77777 ended", "is refused since .*: the answers differ; the model is asked"),
        (b"sshd: Failed password for admin from 192.0.2.1 port 50000", "is learning since .*: benign, 2 of 3 events; "),
        (logins(1, user="admin")[0].encode(), "this very event only, until 3 different ones were answered alike"),
        (b"a" * 9000, "longer than `max_event_bytes`"),
        (b"a \x02b\x03", "it holds a control character that is kept for masks"),
        (b"12345 " * 300, "too many of its words would be masked"),
        (b"  \r\n", "none: it becomes a dead letter, `empty`"),
        (b"door 7 opened\r\n", "masked    nothing\nanswer    [0-9a-f]{12}, since .*: benign"),
    ],
)
def test_an_explanation_says_why_no_entry_answers(somewhere: Bench, event: bytes, why: str) -> None:
    done = somewhere.say("explain", "-", stdin=event)
    assert done.exit_code == 0
    assert re.search(why, done.stdout), done.stdout


def test_an_explanation_of_a_long_text_that_was_not_cut_says_that_it_is_too_long(somewhere: Bench) -> None:
    somewhere.configure('[[sources]]\nkind = "syslog-tcp"\nname = "long"\nmax_event_bytes = 65536\n')
    done = somewhere.say("explain", "--source", "long", "-", stdin=b"a" * 60_000)
    assert "none: it is longer than 8192 characters; the model is asked" in done.stdout


def test_an_event_is_read_as_its_source_reads_it(somewhere: Bench) -> None:
    done = somewhere.say("explain", "--source", "devices", '{"m": {"text": "door 7 opened"}}')
    assert "event     door 7 opened\n" in done.stdout
    done = somewhere.say("explain", "--source", "devices", "door 7 opened")
    assert "it becomes a dead letter, `not-json`" in done.stdout
    done = somewhere.say("explain", "--source", "gone", "door 7 opened")
    assert (done.exit_code, done.stderr) == (
        2,
        "headwater: source `gone`: found none of that name, wanted one of ['devices']\n",
    )


def test_an_event_that_is_longer_than_any_is_refused(bench: Bench) -> None:
    done = bench.say("explain", "-", stdin=b"a" * ((1 << 20) + 1))
    assert (done.exit_code, done.stderr) == (1, "headwater: event: found more than 1048576 bytes, wanted one event\n")


def test_a_policy_that_has_the_cache_off_is_why_no_entry_answers(bench: Bench, serve: Callable[[Policy], None]) -> None:
    serve(Policy(number=4, cache=CacheRules(enabled=False)))
    assert "none: policy 4 has the cache off; the model is asked" in bench.say("explain", LOGIN).stdout


NOT_ACCEPTED = [
    ('[policy]\ndoubtful = "unsure"\n', Policy(doubtful="unsure")),
    ("[policy.cache]\ndoubtful = false\n", Policy(cache=CacheRules(doubtful=False))),
]


@pytest.mark.parametrize(("toml", "policy"), NOT_ACCEPTED)
def test_a_template_that_is_not_accepted_does_not_pass_for_one_that_answers_where_only_accepted_ones_do(
    somewhere: Bench, serve: Callable[[Policy], None], toml: str, policy: Policy
) -> None:
    teach(somewhere.cache, "door 8 opened", *logins(2, user="guest"), opinion=DOUBTFUL)
    if not socket_path(somewhere.state).exists():
        somewhere.keep()

    def states() -> dict[str, str]:
        return {
            each["template"]: each["state"] for each in map(json.loads, somewhere.say("--json").stdout.splitlines())
        }

    guest = "sshd: Failed password for guest from ⟨public address⟩ port ⟨port for anyone⟩"
    assert (states()["door 8 opened"], states()[guest]) == ("answers", "learning")
    if socket_path(somewhere.state).exists():
        serve(policy)
    somewhere.configure(toml)
    assert (states()["door 8 opened"], states()[guest], states()["door 7 opened"]) == (
        "doubtful",
        "doubtful",
        "answers",
    )
    assert "doubtful: the model is asked, for it is not accepted, and the policy" in somewhere.say().stdout
    for event in ("door 8 opened", logins(1, user="guest")[0]):  # of which the latter vouches for its template
        assert re.search(
            r"answer    none: [0-9a-f]{12}, since .*: benign, confidence 0.40, is not accepted, and policy 1 caches "
            "only what is; the model is asked\n",
            somewhere.say("explain", event).stdout,
        )


def test_whether_a_template_is_accepted_is_told_by_the_policy_in_force(bench: Bench) -> None:
    bench.keep()
    bench.configure("[policy]\naccept_at = 0.95\n[policy.cache]\ndoubtful = false\n")
    assert "confidence 0.90, is not accepted" in bench.say("explain", LOGIN).stdout
    bench.configure("[policy]\nmass_floor = 0.995\n[policy.cache]\ndoubtful = false\n")
    assert "confidence 0.90, is not accepted" in bench.say("explain", LOGIN).stdout


def test_a_running_gateway_forgets_with_its_next_events(bench: Bench, serve: Callable[[], None]) -> None:
    serve()
    name = bench.name_of("root")
    done = bench.say("forget", name)
    assert (done.exit_code, done.stdout) == (
        0,
        f"forgot {name} of the gateway in {bench.state}, as soon as the gateway takes its next events\n",
    )
    bench.cache.follow(RELEASE, POLICY)
    assert name not in {entry.name for _, entry in bench.cache.listing()}
    assert bench.say("forget", "--all").exit_code == 0
    bench.cache.follow(RELEASE, POLICY)
    assert (len(bench.cache), bench.cache.refusals()) == (0, [])


def test_what_was_kept_forgets_at_once_and_stays_genuine(bench: Bench) -> None:
    bench.keep()
    for words in ("root", "job"):
        done = bench.say("forget", bench.name_of(words))
        assert (done.exit_code, done.stdout) == (
            0,
            f"forgot {bench.name_of(words)} of the gateway in {bench.state}, of what was kept for the next start\n",
        )
    kept = read_kept(bench.state)
    assert kept is not None
    assert [entry.name for _, entry in kept.entries] == [bench.name_of("admin"), bench.name_of("door")]
    assert kept.refusals == []
    assert snapshot_path(bench.state).stat().st_mode & 0o777 == 0o600
    assert bench.say("forget", "--all").exit_code == 0
    assert not snapshot_path(bench.state).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_what_root_forgets_stays_the_gateways(bench: Bench) -> None:
    bench.keep()
    os.chown(snapshot_path(bench.state), 65534, 65534)
    assert bench.say("forget", bench.name_of("root")).exit_code == 0
    assert snapshot_path(bench.state).stat().st_uid == 65534


def test_forgetting_what_is_not_there_says_so(somewhere: Bench) -> None:
    done = somewhere.say("forget", "\x1b[2J")
    assert (done.exit_code, done.stderr) == (
        1,
        "headwater: template ·[2J: there is none; `python -m edge cache` lists them\n",
    )


@pytest.mark.parametrize("arguments", [(), ("",), ("3fa1c9d2e07b", "--all")])
def test_forgetting_wants_one_name_or_all_and_a_name_that_is_empty_is_none(
    somewhere: Bench, arguments: tuple[str, ...]
) -> None:
    done = somewhere.say("forget", *arguments)
    assert done.exit_code == 2
    assert "give either the name of a template or `--all`" in done.stderr
    somewhere.cache.follow(RELEASE, POLICY)
    assert len(somewhere.cache) == 3


def test_nothing_of_what_was_kept_changes_while_a_gateway_starts_or_stops(bench: Bench) -> None:
    bench.keep()
    before = snapshot_path(bench.state).read_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, bench.state], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as starting:
        assert starting.stdout is not None
        assert starting.stdout.readline() == b"held\n"
        said = bench.say("forget", "--all")
        starting.kill()
    assert said.exit_code == 1
    assert "a gateway that starts or stops has it; ask again in a moment" in said.stderr
    assert snapshot_path(bench.state).read_bytes() == before


@pytest.mark.parametrize("arguments", [("list",), ("explain", LOGIN), ("forget", "--all"), ("forget", "3fa1c9d2e07b")])
def test_where_there_is_neither_a_gateway_nor_what_it_kept_one_sentence_says_so(
    bench: Bench, arguments: tuple[str, ...]
) -> None:
    done = bench.say(*arguments)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"headwater: no gateway answers at {socket_path(bench.state)}, and none has kept")
    assert done.stderr.count("\n") == 1
    assert not bench.state.exists()


def test_another_gateway_is_meant_by_its_configuration(bench: Bench, tmp_path: Path) -> None:
    bench.keep()
    done = CliRunner().invoke(main, ["cache", "--config", str(bench.config)], env={"HEADWATER_CONFIG": "gone.toml"})
    assert done.exit_code == 0
    done = CliRunner().invoke(main, ["cache"], env={"HEADWATER_CONFIG": str(tmp_path / "gone.toml")})
    assert done.exit_code == 2
    assert "gone.toml: cannot be read" in done.stderr


def test_what_was_kept_says_that_it_was_and_whether_the_next_start_takes_it(bench: Bench) -> None:
    bench.keep()
    assert "this is the cache that the last one kept, and the next start takes it over" in bench.say().stderr
    bench.configure("[policy.cache]\nmasks = []\n")
    done = bench.say("explain", LOGIN)
    assert "the next start discards it, because other words are masked now" in done.stderr
    assert "⟨public address⟩" in done.stdout


def test_what_was_kept_under_another_context_size_says_that_the_next_start_discards_it(bench: Bench) -> None:
    bench.config.write_text(bench.config.read_text().replace("[model]\n", "[model]\ncontext_tokens = 512\n"))
    bench.keep()
    assert "discards it, because other words are masked now, or `context_tokens` is another" in bench.say().stderr


def test_what_was_kept_under_another_release_is_of_no_use(bench: Bench) -> None:
    bench.keep()
    bench.model = tiny_decoder(bench.directory / "other.gguf", seed=1)
    bench.configure()
    done = bench.say()
    assert done.exit_code == 1
    assert f"kept under another release than {bench.model}; the next start discards it" in done.stderr


def test_what_was_kept_under_another_task_is_not_shown_with_the_labels_of_this_one(bench: Bench) -> None:
    bench.keep(replace(RELEASE, task=replace(TASK, labels=TASK.labels[::-1])))
    for arguments in (("list",), ("explain", LOGIN)):
        done = bench.say(*arguments)
        assert (done.exit_code, "critical" in done.stdout) == (1, False)
        assert "kept under another task or prompt than tiny-3 has now; the next start discards it" in done.stderr


@pytest.mark.parametrize("lost", [True, False])
def test_what_was_kept_and_is_not_as_the_gateway_wrote_it_is_not_believed(bench: Bench, *, lost: bool) -> None:
    bench.keep()
    if lost:
        (bench.state / "audit-secret").unlink()
    else:
        path = snapshot_path(bench.state)
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
    for arguments in (("list",), ("explain", LOGIN), ("forget", bench.name_of("root"))):
        done = bench.say(*arguments)
        assert done.exit_code == 1
        assert "its digest differs; the next start discards it" in done.stderr
    assert (bench.state / "audit-secret").exists() is not lost
    assert bench.say("forget", "--all").exit_code == 0
    assert not snapshot_path(bench.state).exists()
