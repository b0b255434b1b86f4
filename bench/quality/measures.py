"""What the shipped releases are worth, measured anew.

Everything but two figures is measured on the shipped files as they are: `flips_vs_16bit` needs the 16-bit model and
`quantize_minutes` the whole recipe, so both are what the recipe's run wrote into the release. Intervals are of 95 %
confidence, over products.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.row import Row
from models.contracts.release import Release
from models.header import split
from models.llama import Model
from models.release_file import read_release, release_path
from quantize import ask, baseline, calibrate, injection, measure
from quantize.events import body_of
from quantize.examples import Examples, examples_of
from quantize.expand import NOW_MS, Example
from quantize.labelled import Labelled, read_labelled
from quantize.recipe import Recipe, read_recipe, read_task

ROOT = Path(__file__).parents[2]
_TRIAGE, _INTENTS = "soc-triage", "support-routing"
_SHARED = ROOT.parent / "shared" / "data"
STRANGERS = _SHARED / "triage_labelled.jsonl"
_LOGHUB = _SHARED / "loghub"
_SAMPLE = ROOT / "edge" / "sample.log"
_LINES = 300  # real ones, for speed
_INJECTION_SEED = 77  # not the recipe's
_N_GRAMS = "character n-grams, logistic regression, same corpus"
_CONSTANT = "always harmful"


class Shipped:
    """A release with its recipe's examples.

    Raises:
        HeadwaterError: the file is not there or no release, or its recipe or what that names cannot be read.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self.recipe = path, recipe
        with Model(self.path, vocabulary_only=True) as model:
            self.release: Release = read_release(model)
        self.task = read_task(ROOT / self.recipe.task)
        self.examples: Examples = examples_of(self.recipe.data, ROOT, self.task, self.recipe.seed)
        self.names = self.task.label_names

    def truth(self, examples: Sequence[Example] | Sequence[Labelled]) -> calibrate.Labels:
        return np.array([self.names.index(one.label) for one in examples], dtype=np.int64)

    @cache  # noqa: B019 - there are two, for as long as the process lives
    def on_test(self) -> ask.Answers:
        return ask.ask(self.path, self.release, self.examples.test.bodies)

    @cache  # noqa: B019
    def n_grams(self) -> Any:
        learnt = baseline.examples_for_peers(self.examples, self.task)
        return baseline.train_baseline(learnt, self.names, evenly=bool(self.examples.types))


@cache
def shipped(name: str) -> Shipped:
    path, recipe = release_path(name), read_recipe(ROOT / "recipes" / f"{name}.toml")
    found = Shipped(path, recipe)
    for warning in of_other_data(found.release, found.examples):
        _say(f"{path}: {warning}")
    return found


def of_other_data(release: Release, examples: Examples) -> list[str]:
    """Return what is to be said of a release that was made when other events were held out than are now.

    One that does not tell which those were is judged by its data, of which others may have been held out all the same.
    """
    named, key, now = "held-out events", "held_out_sha256", examples.test.digest
    if key not in release.provenance:
        named, key, now = "data", "data_sha256", examples.digest
    then = release.provenance.get(key, "(not recorded)")
    if then == now:
        return []
    said = (
        f"its {named} hashed to {then} when it was made and hash to {now} now; "
        "held-out figures may be of events that it has learnt"
    )
    return [said]


def strangers() -> list[Row]:
    """Measure on events of others, where they are: none was learnt from."""
    return of_strangers(shipped(_TRIAGE), STRANGERS) if STRANGERS.is_file() else []


def of_strangers(ours: Shipped, path: Path) -> list[Row]:
    """Measure on labelled events that nothing was learnt from; each is asked about as a gateway asks."""
    events = read_labelled(path, ours.task, "product")
    bodies, labels = [body_of(event.text) for event in events], ours.truth(events)
    products, kinds = _clusters(event.group for event in events), len(ours.names)
    seen = ask.ask(ours.path, ours.release, bodies, fields=True)
    peer = baseline.choose(ours.n_grams(), bodies)
    gain = measure.estimate(
        lambda at: (
            measure.macro_f1_of(seen.chosen[at], labels[at], kinds) - measure.macro_f1_of(peer[at], labels[at], kinds)
        ),
        products,
    )
    macro_f1 = measure.estimate_of_macro_f1(seen.chosen, labels, products, kinds)
    ece = measure.estimate_of_error(
        lambda at: calibrate.expected_calibration_error(seen.probabilities[at], labels[at]), products
    )
    theirs = measure.macro_f1_of(peer, labels, kinds)
    return [
        row("triage_macro_f1_gain", gain, "macro-F1", at_least=0.05, peer=f"{_N_GRAMS}: {theirs:.3f}"),
        row("triage_macro_f1", macro_f1, "macro-F1", at_least=0.45),
        *of_two_sides(seen.chosen, labels, products),
        row("triage_ece_strangers", ece, "ECE"),
        *of_fields(seen, [event.fields for event in events], products),
    ]


def of_two_sides(chosen: calibrate.Labels, labels: calibrate.Labels, products: calibrate.Labels) -> list[Row]:
    """Measure the mildest label against the rest.

    The F1 of the harmful alone rises with every event that is called so, so always saying it stands beside. The mean
    over both sides rewards nobody for that.
    """
    said, true, always = (chosen > 0).astype(np.int64), (labels > 0).astype(np.int64), np.ones_like(labels)

    def of_harmful(mine: calibrate.Labels, at: calibrate.Labels) -> float:
        return measure.label_scores(mine[at], true[at], ("benign", "harmful"))["harmful"].f1

    f1 = measure.estimate(lambda at: of_harmful(said, at), products)
    both = measure.estimate_of_macro_f1(said, true, products, 2)
    of_constant = of_harmful(always, np.arange(len(true)))
    both_of_constant = measure.macro_f1_of(always, true, 2)
    return [
        row("triage_binary_f1", f1, "F1", at_least=0.65, peer=f"{_CONSTANT}: {of_constant:.3f}"),
        row("triage_binary_macro_f1", both, "macro-F1", peer=f"{_CONSTANT}: {both_of_constant:.3f}"),
    ]


def of_fields(
    seen: ask.Answers, wanted: Sequence[Mapping[str, Sequence[str]]], products: calibrate.Labels
) -> list[Row]:
    """Measure fields where the release gives any: what it calls benign has none, and counts in neither figure.

    A field that is absent from what is wanted was not annotated, and is not counted either.
    """
    read = np.flatnonzero(seen.chosen > 0).tolist()
    known = [at for at in read if wanted[at].get("technique")]
    hit = [bool(set(seen.fields[at].get("technique", ())) & set(wanted[at]["technique"])) for at in known]

    def sources(at: calibrate.Labels) -> measure.FieldScores:
        some = [read[one] for one in at.tolist()]
        given, right = [seen.fields[one] for one in some], [wanted[one] for one in some]
        return measure.field_scores(given, right, ("source",), annotated=False)["source"]

    def f1(at: calibrate.Labels) -> float:
        found = sources(at)
        return 2 * found.precision * found.recall / max(1e-9, found.precision + found.recall)

    source_f1 = measure.estimate(f1, products[read]) if read else 0.0
    technique = measure.estimate_of_share(np.array(hit), products[known]) if known else 0.0
    return [
        row("source_f1", source_f1, f"F1 of {sources(np.arange(len(read))).wanted} values", at_least=0.95),
        row("technique_accuracy", technique, f"share of {len(known)}"),
    ]


def held_out() -> list[Row]:
    """Measure on products that the release learnt nothing from."""
    ours = shipped(_TRIAGE)
    test, names = ours.examples.test, ours.names
    products = _clusters(example.product for example in test.examples)
    seen, labels = ours.on_test(), ours.truth(test.examples)
    before = [names[at] for at in seen.chosen]
    attacks = injection.cases(test.bodies, before, ours.task, ours.recipe.severity, _INJECTION_SEED)
    told = ask.ask(ours.path, ours.release, [case.text for case in attacks])
    quiet = ours.examples.quiet
    if quiet is None:
        raise ValueError(f"recipes/{_TRIAGE}.toml names no events of plain operation")
    alarms = ask.ask(ours.path, ours.release, quiet.bodies).chosen != ours.truth(quiet.examples)
    foreign = ask.ask(ours.path, ours.release, ours.examples.foreign_test)

    def flips(at: calibrate.Labels) -> float:
        some = [attacks[one] for one in at]
        after = [names[told.chosen[one]] for one in at]
        return injection.outcome(some, [before[case.event] for case in some], after, ours.recipe.severity).flips

    ece = measure.estimate_of_error(
        lambda at: calibrate.expected_calibration_error(seen.probabilities[at], labels[at]), products
    )
    turned = measure.estimate(flips, products[[case.event for case in attacks]])
    alarmed = measure.estimate_of_share(alarms, _clusters(example.product for example in quiet.examples))
    return [
        row("triage_ece", ece, "ECE", at_most=0.03),
        row("injection_flips", turned, f"share of {len(attacks)}", at_most=0.05),
        row("quiet_false_alarms", alarmed, f"share of {len(alarms)}", at_most=0.05),
        # Foreign texts are of a few kinds, which matter more than products: resamples of events say nothing of those.
        row("foreign_auroc", measure.auroc(seen.masses, foreign.masses), "AUROC", at_least=0.95),
    ]


def intents() -> list[Row]:
    """Measure the customers' questions that were held out; each is of its own."""
    ours = shipped(_INTENTS)
    test = ours.examples.test
    right = measure.estimate_of_share(ours.on_test().chosen == ours.truth(test.examples), test.witnesses)
    return [row("intents_accuracy", right, "accuracy", at_least=0.93)]


def recorded() -> list[Row]:
    """Return what only the recipe's own run can measure."""
    ours = shipped(_TRIAGE)
    rows = rows_recorded(ours.release.provenance)
    for missing in sorted(set(MEASURED[recorded]) - {one.name for one in rows}):
        _say(f"{missing}: not recorded in {ours.path}")
    return rows


def rows_recorded(told: Mapping[str, str]) -> list[Row]:
    """Return the rows whose figures a release's provenance has."""
    rows = []
    if "label_flips" in told:
        rows.append(row("flips_vs_16bit", float(told["label_flips"]), "share, by the recipe's run", at_most=0.01))
    if "minutes" in told:
        rows.append(row("quantize_minutes", float(told["minutes"]), "min, by the recipe's run", at_most=90))
    return rows


def speed() -> list[Row]:
    """Measure how many different real lines one thread labels; the slowest release counts.

    Questions to a bank are no lines of a log, and events of the corpus are longer than most: each release's speed on
    what it was made for stands beside.
    """
    releases = {name: shipped(name) for name in (_TRIAGE, _INTENTS)}
    real = {name: ask.events_per_s(one.path, one.release, lines()) for name, one in releases.items()}
    own = {
        name: ask.events_per_s(one.path, one.release, _some(one.examples.test.bodies)) for name, one in releases.items()
    }
    said = "; ".join(
        f"{kind}: {', '.join(f'{name} {rate:.0f}' for name, rate in rates.items())}"
        for kind, rates in (("real lines", real), ("their own held-out texts", own))
    )
    return [row("label_events_per_s", min(real.values()), "events/s", at_least=60, peer=said)]


def lines() -> list[str]:
    """Return real lines without their headers, as the model gets them; the sample's where there are none."""
    logs = sorted(_LOGHUB.glob("*.log")) or [_SAMPLE]
    texts = [log.read_text(encoding="utf-8", errors="replace").splitlines()[: _LINES // len(logs)] for log in logs]
    return [split(line, NOW_MS).body for text in texts for line in text]


def _some(bodies: Sequence[str]) -> Sequence[str]:
    """Return texts from all over a fold, as many as there are real lines: neighbours are alike."""
    return bodies[:: -(-len(bodies) // _LINES)]


def _clusters(groups: Iterable[str]) -> calibrate.Labels:
    """Return a number per group: events of one product are alike, so an interval draws them together."""
    return np.unique(list(groups), return_inverse=True)[1].astype(np.int64)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def row(
    name: str,
    found: measure.Estimate | float,
    unit: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    peer: str = "",
) -> Row:
    """Return a row, with the interval of an estimate; the value itself is what is held against the target."""
    value, interval = (found.value, (found.low, found.high)) if isinstance(found, measure.Estimate) else (found, None)
    passed = None
    if at_least is not None:
        passed = value >= at_least
    if at_most is not None:
        passed = value <= at_most
    return Row(name=name, value=value, interval=interval, unit=unit, peer=peer, passed=passed)


MEASURED: dict[Callable[[], list[Row]], tuple[str, ...]] = {
    strangers: (
        "triage_macro_f1_gain",
        "triage_macro_f1",
        "triage_binary_f1",
        "triage_binary_macro_f1",
        "triage_ece_strangers",
        "source_f1",
        "technique_accuracy",
    ),
    held_out: ("triage_ece", "injection_flips", "quiet_false_alarms", "foreign_auroc"),
    intents: ("intents_accuracy",),
    recorded: ("flips_vs_16bit", "quantize_minutes"),
    speed: ("label_events_per_s",),
}
