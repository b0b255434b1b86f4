"""`python -m central queue`, over a queue in a file."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from time import monotonic

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from central.main import main
from central.queue.asking import go_through
from central.queue.command import queue_group
from central.queue.desk import Publisher, QueueDesk, QueueSettings, now_ms
from central.queue.store import Store, Wanted
from central.queue.view import table, whole
from dataflows.connectors.kafka import Cluster
from dataflows.running.commands import Commands
from models.contracts.task import Label, Task
from models.contracts.verdict import PERSON, Verdict
from quantize.labelled import read_labelled
from tests.checks.queue_store import found, put, waiting
from tests.fakes.incidents import incident
from tests.fakes.verdicts import verdict

CHECKOUT = Path(__file__).parents[4]
STRANGE = "app: \x1b[2J\x9b31m\u202egpj.exe\ttab\nline [bold]"
SHOWN = "app: \\x1b[2J\\x9b31m\\u202egpj.exe\\ttab\\nline [bold]"
NOBODY = Cluster(brokers="127.0.0.1:9")
MINUTE = 60_000


class Bench:
    """A queue with some items, and what the command says of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"sqlite:///{directory / 'queue.sqlite3'}"
        self.store = Store(self.url)

    def put(self, *verdicts: Verdict) -> None:
        put(self.store, *verdicts, now_ms=now_ms())

    def say(self, *arguments: str, cluster: Cluster | None = None) -> Result:
        group = Commands("central")
        group.add_command(queue_group(lambda _path: QueueSettings(database=self.url, cluster=cluster)))
        return CliRunner().invoke(group, ["queue", *arguments], env={"HEADWATER_ANALYST": "alice"})

    def state_of(self, item_id: str) -> tuple[str, str | None]:
        item = self.store.show(item_id, now_ms())
        return item.state, item.answer

    def configure(self) -> Path:
        path = self.directory / "central.toml"
        path.write_text(f'[kafka]\nbrokers = "127.0.0.1:9"\n[deliver.queue]\nurl = "{self.url}"\n')
        return path


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    made.put(
        waiting(id="o.1", label="benign", source="hosts"),
        waiting(id="o.2", label="critical", source="doors", gateway="gw-1", text=STRANGE),
        waiting(id="o.3", label="critical", source="hosts"),
    )
    yield made
    made.store.close()


def lines(done: Result) -> list[list[str]]:
    assert done.exit_code == 0, done.output
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_a_pipe_gets_a_line_per_item_the_gravest_first_and_the_fields_names_in_the_first(bench: Bench) -> None:
    names, *items = lines(bench.say())

    assert names[:5] == ["id", "kind", "state", "label", "confidence"]
    assert [item[:5] for item in items] == [
        ["o.2", "event", "waiting", "critical", "0.5000"],
        ["o.3", "event", "waiting", "critical", "0.5000"],
        ["o.1", "event", "waiting", "benign", "0.5000"],
    ]
    assert items[0][-1] == SHOWN


def test_a_list_can_be_of_some_items_and_says_when_there_are_more(bench: Bench) -> None:
    done = bench.say("list", "--source", "hosts", "--limit", "1")
    assert [item[0] for item in lines(done)[1:]] == ["o.3"]
    assert done.stderr == "headwater: 1 of 2 items; `--limit`, `--offset`\n"
    assert [item[0] for item in lines(bench.say("list", "--source", "hosts", "--offset", "1"))[1:]] == ["o.1"]
    done = bench.say("list", "--label", "suspicious")
    assert len(lines(done)) == 1
    assert done.stderr == f"headwater: no such item in {bench.directory}/queue.sqlite3\n"


def test_json_has_the_whole_verdict_in_ascii(bench: Bench) -> None:
    done = bench.say("--json", "--limit", "1")

    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout
    item = json.loads(done.stdout)
    assert (item["id"], item["state"], item["gravity"]) == ("o.2", "waiting", 2)
    assert item["event"]["text"] == STRANGE
    assert item["event"]["probabilities"] == verdict().probabilities


def test_a_table_is_as_wide_as_the_terminal_and_steered_by_no_strangers_text(bench: Bench) -> None:
    bench.store.claim("o.3", STRANGE, now_ms(), 30 * MINUTE)
    page = bench.store.page(Wanted(), now_ms())
    out = StringIO()
    Console(file=out, width=90, color_system=None).print(table(page.items, now_ms()))

    shown = out.getvalue()
    assert {"\x1b", "\x9b", "\u202e", "\t"}.isdisjoint(shown)
    assert len(shown.splitlines()) == 1 + 2 * 3
    assert SHOWN in shown
    assert f"claimed by {SHOWN[:20]}" in shown


def test_an_item_is_shown_with_its_probabilities(bench: Bench) -> None:
    done = bench.say("show", "o.2")

    assert done.exit_code == 0
    assert f"text      {SHOWN}\n" in done.stdout
    assert "said      critical, confidence 0.50, by soc-triage-1, policy 1\n" in done.stdout
    assert "  1       benign             2%  \n" in done.stdout
    assert "  3       critical          95%  #######################\n" in done.stdout
    done = bench.say("show", "o.9")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("headwater: o.9: there is no such item")


def test_an_incident_is_shown_with_its_events(bench: Bench) -> None:
    bench.store.put(found(incident(key=STRANGE, count=7)), now_ms())

    shown = whole(bench.store.show(incident().id, now_ms()), now_ms()).plain
    assert f"rule      logins: {SHOWN}, open\n" in shown
    assert "labels    2 suspicious, 1 critical\n" in shown
    assert "Accepted password for root\n" in shown
    assert "and 4 more\n" in shown
    assert lines(bench.say("list", "--kind", "incident"))[1][-1].startswith("logins app: ")


def test_a_claim_is_of_the_gravest_that_nobody_has(bench: Bench) -> None:
    assert bench.say("claim", "--source", "hosts").stdout.startswith("event     o.3\nstate     claimed by alice")
    assert json.loads(bench.say("claim", "--json", "--by", "bob").stdout)["id"] == "o.2"
    done = bench.say("claim", "o.2")
    assert (done.exit_code, done.stderr) == (1, "headwater: o.2: bob has it, for 30 min more; changed nothing\n")
    assert bench.say("claim", "o.1").exit_code == 0
    done = bench.say("claim")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "headwater: nothing waits that nobody has\n"


def test_what_is_released_is_there_for_others(bench: Bench) -> None:
    bench.say("claim", "o.2")
    assert bench.say("release", "o.2", "--by", "bob").exit_code == 1
    assert bench.say("release", "o.2").stdout == "released o.2\n"
    assert bench.state_of("o.2") == ("waiting", None)
    assert bench.say("release", "o.2").exit_code == 1


def test_an_answer_is_kept_with_who_gave_it(bench: Bench) -> None:
    done = bench.say("answer", "o.2", "benign", "--note", "ours")

    assert (done.exit_code, done.stdout) == (0, "answered o.2: benign\n")
    assert "answer    benign by alice, " in bench.say("show", "o.2").stdout
    done = bench.say("answer", "o.2", "critical", "--by", "bob")
    assert (done.exit_code, done.stderr) == (
        1,
        "headwater: o.2: alice answered `benign`; `--correct` answers anew\n",
    )
    assert bench.say("answer", "o.2", "critical", "--by", "bob", "--correct").exit_code == 0
    assert bench.state_of("o.2") == ("answered", "critical")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("o.2", "harmless"), "o.2: found label `harmless`, wanted one of benign, suspicious, critical"),
        (("o.2", "benign", "--note", "n" * 2001), "found 2001 characters, wanted at most 2000"),
        (("o.2",), "standard input is no terminal to ask at: give an ID and a LABEL"),
        ((), "standard input is no terminal to ask at: give an ID and a LABEL"),
        (("--minutes", "0"), "0 is not in the range"),
    ],
)
def test_an_answer_that_cannot_be_one_changes_nothing_and_is_a_matter_of_use(
    bench: Bench, arguments: tuple[str, ...], why: str
) -> None:
    done = bench.say("answer", *arguments)

    assert done.exit_code == 2
    assert why in done.stderr
    assert bench.state_of("o.2") == ("waiting", None)


def test_an_answer_is_kept_although_kafka_is_away(bench: Bench) -> None:
    done = bench.say("answer", "o.2", "benign", cluster=NOBODY)

    assert (done.exit_code, done.stdout) == (0, "answered o.2: benign\n")
    assert "headwater: kept the answer, and could not publish it yet: kafka 127.0.0.1:9" in done.stderr
    assert ["unpublished", "1"] in lines(bench.say("stats"))


def test_an_export_is_what_quantize_measures_by(bench: Bench) -> None:
    bench.store.put(found(incident()), now_ms())
    bench.put(waiting(id="o.4", release="other-task-3", text="unlike the others"))
    for item_id, label in (("o.2", "benign"), ("o.1", "critical"), ("o.4", "benign"), (incident().id, "critical")):
        bench.say("answer", item_id, label)
    out = bench.directory / "answers.jsonl"

    done = bench.say("export", "--release", "soc-triage", "--out", str(out))

    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "headwater: wrote 2 answers\n")
    task = Task(name="soc", instruction="", labels=(Label("benign", ""), Label("critical", "")), default_label="benign")
    truth = read_labelled(out, task, "source")
    assert [(event.text, event.label, event.group) for event in truth] == [
        (STRANGE, "benign", "doors"),
        ("Failed password for root", "critical", "hosts"),
    ]
    (line,) = bench.say("export", "--source", "doors").stdout.splitlines()
    answer = json.loads(line)
    assert (answer["type"], answer["by"], answer["model_label"], answer["revision"]) == (
        "answer/1",
        "alice",
        "critical",
        PERSON,
    )


def test_an_export_that_cannot_be_written_leaves_what_was_there(bench: Bench) -> None:
    bench.say("answer", "o.2", "benign")
    out = bench.directory / "answers.jsonl"
    out.write_text("earlier")
    (bench.directory / "answers.jsonl.unfinished").mkdir()

    done = bench.say("export", "--out", str(out))

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"headwater: {out}: Is a directory; left it as it was\n"
    assert out.read_text() == "earlier"


def test_stats_say_how_the_queue_stands(bench: Bench) -> None:
    bench.say("claim")
    stood = dict(lines(bench.say("stats")))  # type: ignore[arg-type]

    assert {name: stood[name] for name in ("waiting", "claimed", "answered", "superseded")} == {
        "waiting": "2",
        "claimed": "1",
        "answered": "0",
        "superseded": "0",
    }
    assert (stood["open_benign"], stood["open_critical"]) == ("1", "2")
    assert int(stood["oldest_waits_s"]) < 600
    assert json.loads(bench.say("stats", "--json").stdout)["open_by_label"] == {"benign": 1, "critical": 2}


@pytest.mark.parametrize("command", [(), ("list",), ("show",), ("claim",), ("release",), ("answer",), ("export",)])
def test_help_has_examples_and_needs_no_configuration(command: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, ["queue", *command, "--help"], env={"HEADWATER_CENTRAL": "/nowhere"})

    assert done.exit_code == 0
    assert "python -m central queue" in done.stdout


def test_the_configuration_says_where_the_queue_is(bench: Bench) -> None:
    done = CliRunner().invoke(main, ["queue", "--config", str(bench.configure())])
    assert [item[0] for item in lines(done)] == ["id", "o.2", "o.3", "o.1"]

    done = CliRunner().invoke(main, ["queue", "--config", str(bench.directory / "gone.toml")])
    assert done.exit_code == 2
    assert "gone.toml" in done.stderr


def at_the_desk(bench: Bench, *typed: str | None) -> tuple[tuple[int, bool], str]:
    """Go through the queue and type these lines; return what came of it, and what was shown."""
    out = StringIO()
    rest = iter(typed)
    desk = QueueDesk(bench.store, Publisher(QueueSettings(database=bench.url), bench.store), Wanted(), "alice", MINUTE)
    return go_through(desk, Console(file=out, width=100), lambda _prompt: next(rest), now_ms), out.getvalue()


def test_a_person_goes_through_the_queue_by_number_name_beginning_or_enter(bench: Bench) -> None:
    done, shown = at_the_desk(bench, "1 our own scanner", "susp", "")

    assert done == (3, True)
    assert bench.state_of("o.2") == ("answered", "benign")
    assert bench.store.show("o.2", now_ms()).note == "our own scanner"
    assert bench.state_of("o.3") == ("answered", "suspicious")
    assert bench.state_of("o.1") == ("answered", "benign")
    assert "Enter critical   number or name, perhaps with a note behind it   s skip   q quit" in shown


def test_what_is_skipped_is_left_to_others_and_not_shown_again(bench: Bench) -> None:
    done, _ = at_the_desk(bench, "s", "s", "s")

    assert done == (0, True)
    assert {bench.state_of(item_id) for item_id in ("o.1", "o.2", "o.3")} == {("waiting", None)}


@pytest.mark.parametrize("last", ["q", None])
def test_whoever_goes_leaves_what_was_shown_to_others(bench: Bench, last: str | None) -> None:
    done, shown = at_the_desk(bench, "9", "nonsense \x1b[2J", last)

    assert done == (0, False)
    assert "`9` is none of benign, suspicious, critical" in shown
    assert "`nonsense` is none of" in shown
    assert bench.state_of("o.2") == ("waiting", None)


def test_a_person_answers_on_a_terminal(bench: Bench) -> None:
    terminal, theirs = pty.openpty()
    environment = {
        **os.environ,
        "PYTHONPATH": str(CHECKOUT),
        "HEADWATER_CENTRAL": str(bench.configure()),
        "TERM": "vt100",
    }
    command = [sys.executable, "-m", "central", "queue", "answer", "--by", "alice", "--source", "doors"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        try:
            shown = read_until(terminal, "label:")
            os.write(terminal, b"1 ours\n")
            shown += read_until(terminal, "nothing else waits")
            assert process.wait(30) == 0
        finally:
            process.kill()
            os.close(terminal)

    assert SHOWN in shown.replace("\r\n", "")
    assert "\x1b[2J" not in shown
    assert bench.state_of("o.2") == ("answered", "benign")


def read_until(terminal: int, words: str) -> str:
    deadline, seen = monotonic() + 90, ""
    while words not in seen:
        assert monotonic() < deadline, seen
        seen += os.read(terminal, 4096).decode()
    return seen
