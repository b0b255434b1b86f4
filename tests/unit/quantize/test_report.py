import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from msgspec.structs import replace

from models.contracts.policy import Policy
from quantize.figures import Peer
from quantize.measure import Estimate, LabelScores, SourceScores
from quantize.recipe import Base, TrainNothing
from quantize.report import Part, parts, report
from tests.fakes import measured


class Seen(HTMLParser):
    """What a browser makes of a page: its tags, its text, and what it left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":  # the one that has no end
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page(*blocked: str, labels: tuple[str, ...] = measured.LABELS, **changes: object) -> str:
    return report(measured.recipe(), measured.release(labels), measured.figures(labels, **changes), blocked)


def seen(*blocked: str, labels: tuple[str, ...] = measured.LABELS, **changes: object) -> Seen:
    return Seen(page(*blocked, labels=labels, **changes))


def section(text: str, title: str) -> str:
    """Return what stands below a heading."""
    return text.partition(f"<h2>{title}</h2>")[2].partition("</section>")[0]


@pytest.mark.parametrize("labels", [measured.LABELS, measured.MANY], ids=len)
def test_the_page_asks_for_nothing_from_outside_and_runs_nothing(labels: tuple[str, ...]) -> None:
    shown = seen(labels=labels)

    assert shown.open == []
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in shown.tags}
    assert not {"src", "href", "onclick", "onload"} & {name for _, attributes in shown.tags for name in attributes}
    assert "url(" not in page(labels=labels)
    assert "@import" not in page(labels=labels)


def test_a_release_that_passes_says_so_and_one_that_does_not_gives_every_reason_first() -> None:
    reasons = ("macro-F1: found 0.7000, wanted at least 0.8000", "accuracy: not measured, wanted at least 0.9000")
    passes, blocked = seen().text, seen(*reasons).text

    assert "Passes every limit of its recipe." in passes
    assert "Held back" not in passes
    assert "Passes" not in blocked
    assert blocked.index(reasons[0]) < blocked.index(reasons[1]) < blocked.index("Sorts security events")


def test_the_headline_figures_have_their_intervals_and_stand_beside_their_peers() -> None:
    peers = Seen(section(page(), "Against its peers")).text

    for said in ("0.764", "0.741 to 0.788", "0.752", "0.726 to 0.779", "n-grams 0.731 0.718", "triage-2 0.727 0.712"):
        assert said in peers


def test_a_peer_that_is_better_is_said_to_be() -> None:
    better = Peer("n-grams", accuracy=0.771, macro_f1=0.801)

    said = seen(peers=[measured.MAJORITY, better]).text

    assert "By accuracy, the peer n-grams is better than this release: 0.771 to 0.764, within this" in said
    assert "By macro-F1, the peer n-grams is better than this release: 0.801 to 0.752, above this" in said
    assert "the peer majority" not in said
    assert "No peer is better" not in said
    assert "No peer is better" in seen().text


def test_what_was_not_measured_is_never_nought() -> None:
    shown = page(
        label_flips=None,
        foreign_auroc=None,
        injections=None,
        quiet_false_alarms=None,
        events_per_s=0.0,
        resident_megabytes=0.0,
        fields={},
        sources=[],
        minutes={},
        machine="",
    )
    others = Seen(section(shown, "The other figures")).text

    for what in (
        "labels that differ from the 16-bit model's",
        "injected texts that got their event a milder label",
        "label mass against foreign text, AUROC",
        "false alarms on plain operation",
        "speed, one thread, different events",
        "memory, to open it and read a few dozen events",
    ):
        assert f"{what} not measured" in others
    text = Seen(shown).text
    assert "By source: not measured." in text
    assert "Its fields were not measured." in text
    assert "What injected texts do to it was not measured." in text
    assert "machine not measured" in text
    assert "Minutes by step Not measured." in text


def test_nothing_accepted_is_not_nothing_wrong() -> None:
    others = section(page(accepted=0.0, error_among_accepted=0.0, accepted_witnesses=0), "The other figures")

    assert "wrong among the accepted nothing is accepted" in Seen(others).text


def test_a_hostile_text_is_shown_as_text() -> None:
    attack = '</li><script>alert("1")</script> \'"><img src=x onerror=alert(2)> {{ release }}'
    injections = replace(measured.figures().injections, examples=[attack])
    sources = [SourceScores("<b onclick=x>vendor</b>", 9, 0.5, 0.4)]

    shown = seen(injections=injections, sources=sources)

    assert "script" not in {tag for tag, _ in shown.tags}
    assert "img" not in {tag for tag, _ in shown.tags}
    assert attack in shown.text
    assert "<b onclick=x>vendor</b>" in shown.text


def test_characters_that_would_not_be_seen_are_shown_by_their_number() -> None:
    hidden = "ig\u200bnore\u202e\x1b[2K\ufe0f\u3164\U000e0041"
    injections = replace(measured.figures().injections, examples=[hidden])

    shown = page(injections=injections)

    assert not set("\u200b\u202e\x1b\ufe0f\u3164\U000e0041") & set(shown)
    for number in ("U+200B", "U+202E", "U+001B", "U+FE0F", "U+3164", "U+E0041"):
        assert f'<span class="hidden">{number}</span>' in shown


def test_a_text_is_parted_into_what_is_seen_and_what_is_not() -> None:
    assert parts("a b\nü") == [Part("a b", False), Part("U+000A", True), Part("ü", False)]
    assert parts("\ud800") == [Part("U+D800", True)]  # half a pair: no file could hold it
    assert parts("") == []


def test_few_labels_have_a_matrix_and_many_the_most_frequent_confusions() -> None:
    few = section(page(), "Confidence and confusion")
    many = section(page(labels=measured.MANY), "Confidence and confusion")

    assert [int(events) for events in re.findall(r'<td class="(?:right|wrong)[^>]*>(\d+)</td>', few)] == [
        events for row in measured.figures().confusion for events in row
    ]
    assert '<td class="right' not in many
    first = Seen(many).text.partition("of the label's ")[2]
    assert first.startswith("intent_75 intent_74 9 37.50 %")


@pytest.mark.parametrize("count", [12, 13, 77])
def test_more_than_a_dozen_labels_have_no_matrix_but_the_twenty_pairs_most_often_confused(count: int) -> None:
    labels = measured.MANY[:count]
    confusion = measured.figures(labels).confusion
    pairs = sorted((events for at, row in enumerate(confusion) for events in row[:at] + row[at + 1 :] if events))[::-1]

    shown = section(page(labels=labels), "Confidence and confusion")
    listed = [int(events) for events in re.findall(r'<td class="said">[^<]*</td><td class="number">(\d+)</td>', shown)]

    assert ('class="matrix' in shown) == (count == 12)
    assert listed == ([] if count == 12 else pairs[:20])
    assert '<div class="pair">' not in shown  # in half a page long names would be cut to pieces
    assert count == 12 or (
        f"The {min(20, len(pairs))} most frequent of {len(pairs)} pairs that are confused, among {count} labels."
        in Seen(shown).text
    )


def test_of_many_labels_the_weakest_come_first_and_all_can_be_opened() -> None:
    shown = section(page(labels=measured.MANY), "Labels")
    before, _, behind = shown.partition("<details>")

    weakest = re.findall(r"<th>(intent_\d\d)</th>", before)
    assert weakest[0] == "intent_75"
    assert len(weakest) == 15
    assert re.findall(r"<th>(intent_\d\d)</th>", behind) == list(measured.MANY)


def test_a_label_that_does_not_occur_has_no_recall_and_one_never_given_no_precision() -> None:
    by_label = {
        "benign": LabelScores(0.5, 1.0, 0.667, 4),
        "suspicious": LabelScores(0.0, 0.0, 0.0, 4),
        "critical": LabelScores(0.0, 0.0, 0.0, 0),
    }
    confusion = [[4, 0, 0], [3, 0, 1], [0, 0, 0]]

    labels = Seen(section(page(by_label=by_label, confusion=confusion), "Labels")).text

    assert "suspicious never given 0.000 0.000 4" in labels
    assert "critical 0.000 not measured not measured 0 never" in labels


def test_the_largest_sources_and_the_worst_of_enough_events_are_shown() -> None:
    few = SourceScores("too-few", 7, 0.0, 0.0)
    many = [SourceScores(f"vendor-{at}", 100 - at, 0.5 + 0.005 * at, 0.4) for at in range(60)]

    shown = section(page(sources=[*many, few]), "Sources")
    largest, worst = shown.split("<h3>")[1:]

    assert largest.startswith("The 40 largest of 61</h3>")
    assert re.findall(r"vendor-\d+", largest) == [f"vendor-{at}" for at in range(40)]
    assert re.findall(r"vendor-\d+|too-few", worst) == [f"vendor-{at}" for at in range(10)]


def test_sources_of_an_event_each_are_not_listed() -> None:
    shown = section(page(sources=[SourceScores(f"text-{at}", 1, 1.0, 1.0) for at in range(99)]), "Sources")

    assert "No source has 8 events or more" in shown
    assert "text-1" not in shown


def test_every_candidate_says_what_became_of_it() -> None:
    rows = Seen(section(page(), "Fewer bits")).text

    assert "19.8 MB 142 events/s 1.71 % 0.024 none misses a limit: 1.71% of the labels flip" in rows
    assert "Q5_0: 2 tensors misses a limit: 1.23% of the labels flip" in rows
    assert "0.67 % 0.024 none chosen: the smallest that misses no limit" in rows
    assert "0.13 % 0.024 none misses a limit: 34.9 MB" in rows


def test_the_chart_has_a_point_for_every_candidate_and_fills_the_chosen_one() -> None:
    chart = section(page(), "Fewer bits").partition("</svg>")[0]
    across = [float(x) for x in re.findall(r'<circle class="\w+" cx="([\d.]+)"', chart)]
    sizes = [trial.megabytes for trial in sorted(measured.figures().trials, key=lambda one: -one.label_flips)]

    assert [round(x / across[0], 2) for x in across] == [round(size / sizes[0], 2) for size in sizes]
    assert chart.count('<circle class="dot"') == 1
    assert '<text class="name chosen"' in chart


def test_candidates_that_flip_no_label_have_a_chart() -> None:
    trials = [replace(trial, label_flips=0.0) for trial in measured.figures().trials]

    assert section(page(trials=trials), "Fewer bits").count("<circle") == len(trials)


def test_names_in_the_chart_do_not_lie_on_each_other() -> None:
    trials = [measured.trial(kind, 21.0, 0.012) for kind in ("Q4_K_S", "Q4_K_M", "IQ4_NL")]

    chart = section(page(trials=trials), "Fewer bits").partition("</svg>")[0]
    heights = sorted(float(y) for y in re.findall(r'<text class="name[^>]* y="([\d.]+)"', chart))

    assert len(heights) == 3
    assert all(above + 12 <= below for above, below in pairwise(heights))


def test_a_model_that_came_finished_was_neither_quantized_nor_compared_with_itself() -> None:
    recipe = measured.recipe(base=Base(kind="gguf", path="a.gguf", licence="MIT"), training=TrainNothing())

    text = Seen(report(recipe, measured.release(), measured.figures(label_flips=None), ())).text

    assert "nothing of it was quantized here" in text
    assert "labels that differ from the 16-bit model's not measured" in text


def test_injected_texts_are_told_by_kind_and_by_carrier() -> None:
    text = Seen(section(page(), "What strangers write, and plain operation")).text

    assert "Of 840 texts" in text
    assert "3.81 % got their event a milder label." in text
    assert "instructions 7.20 %" in text
    assert "URL 1.20 %" in text
    assert "one of 600 texts of other kinds in 94.70 % of the pairs" in text
    assert "5.20 % of 410 events of plain operation raise a false alarm (95 % interval 3.10 to 7.70 %)" in text


def test_the_origins_are_on_the_page() -> None:
    text = Seen(section(page(), "What it was made from")).text

    for said in ("d" * 64, "b" * 64, "Apache-2.0", "MIT", "Headwater", "A processor, 2 threads", "train 94.2", "112.5"):
        assert said in text


def test_the_limits_of_the_recipe_stand_beside_what_was_found() -> None:
    gate = replace(measured.recipe().gate, min_foreign_auroc=0.9, min_macro_f1=0.7)
    shown = report(measured.recipe(gate=gate), measured.release(), measured.figures(), ())

    assert "AUROC 0.947 at least 0.900" in Seen(section(shown, "The other figures")).text
    assert "The recipe wants macro-F1 at least 0.700." in Seen(section(shown, "Against its peers")).text


def test_an_interval_is_drawn_where_it_lies() -> None:
    drawn = page(accuracy=Estimate(0.5, 0.25, 0.75))

    assert '<rect class="interval" x="52.0" width="96.0"' in drawn


def test_labels_that_are_never_accepted_are_said_to_be() -> None:
    release = measured.release(policy=Policy(accept_at=1.0, doubtful="escalated"))

    text = Seen(report(measured.recipe(), release, measured.figures(), ())).text

    assert (
        "A verdict of benign , suspicious , critical is never accepted, however confident, and goes to escalated."
        in text
    )
