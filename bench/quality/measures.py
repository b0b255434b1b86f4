"""What the shipped releases are worth, measured anew.

Everything but two figures is measured on the shipped files as they are: `flips_vs_16bit` needs the 16-bit model and
`quantize_minutes` the whole recipe, so both are what the recipe's run wrote into the release.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
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
from quantize.examples import Examples, digest_of_data, examples_of
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
    for warning in of_other_data(found.release, digest_of_data(ROOT / recipe.data.path)):
        _say(f"{path}: {warning}")
    return found


def of_other_data(release: Release, digest: str) -> list[str]:
    """Return what is to be said of a release that was made from other data than those of this `digest`."""
    learnt = release.provenance.get("data_sha256", "")
    if learnt == digest:
        return []
    said = (
        f"it was made from data that hash to {learnt or '(not recorded)'}, those of its recipe hash to {digest} now; "
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
    seen = ask.ask(ours.path, ours.release, bodies, fields=True)
    peer = baseline.choose(ours.n_grams(), bodies)
    mine, theirs = (measure.macro_f1_of(chosen, labels, 3) for chosen in (seen.chosen, peer))
    harmful = measure.label_scores((seen.chosen > 0).astype(np.int64), (labels > 0).astype(np.int64), ("no", "yes"))
    # A field that is absent was not annotated; a verdict whose label has no fields says nothing of them.
    read = [(given, event.fields) for given, event, at in zip(seen.fields, events, seen.chosen, strict=True) if at > 0]
    techniques = [
        bool(set(given.get("technique", ())) & set(wanted["technique"]))
        for given, wanted in read
        if wanted.get("technique")
    ]
    fields = measure.field_scores(
        [given for given, _ in read], [wanted for _, wanted in read], ("source",), annotated=False
    )
    source = fields["source"]
    f1 = 2 * source.precision * source.recall / max(1e-9, source.precision + source.recall)
    return [
        row("triage_macro_f1_gain", mine - theirs, "macro-F1", at_least=0.05, peer=f"{_N_GRAMS}: {theirs:.3f}"),
        row("triage_macro_f1", mine, "macro-F1", at_least=0.45),
        row("triage_binary_f1", harmful["yes"].f1, "F1", at_least=0.65),
        row("triage_ece_strangers", calibrate.expected_calibration_error(seen.probabilities, labels), "ECE"),
        row("source_f1", f1, f"F1 of {source.wanted} values", at_least=0.95),
        row("technique_accuracy", float(np.mean(techniques)) if techniques else 0.0, f"share of {len(techniques)}"),
    ]


def held_out() -> list[Row]:
    """Measure on products that the release learnt nothing from."""
    ours = shipped(_TRIAGE)
    test, names = ours.examples.test, ours.names
    seen, labels = ours.on_test(), ours.truth(test.examples)
    before = [names[at] for at in seen.chosen]
    attacks = injection.cases(test.bodies, before, ours.task, ours.recipe.severity, _INJECTION_SEED)
    told = ask.ask(ours.path, ours.release, [case.text for case in attacks])
    outcome = injection.outcome(
        attacks, [before[case.event] for case in attacks], [names[at] for at in told.chosen], ours.recipe.severity
    )
    quiet = ours.examples.quiet
    if quiet is None:
        raise ValueError(f"recipes/{_TRIAGE}.toml names no events of plain operation")
    alarms = ask.ask(ours.path, ours.release, quiet.bodies).chosen != ours.truth(quiet.examples)
    foreign = ask.ask(ours.path, ours.release, ours.examples.foreign_test)
    ece = calibrate.expected_calibration_error(seen.probabilities, labels)
    return [
        row("triage_ece", ece, "ECE", at_most=0.03),
        row("injection_flips", outcome.flips, f"share of {outcome.cases}", at_most=0.05),
        row("quiet_false_alarms", float(alarms.mean()), f"share of {len(alarms)}", at_most=0.05),
        row("foreign_auroc", measure.auroc(seen.masses, foreign.masses), "AUROC", at_least=0.95),
    ]


def intents() -> list[Row]:
    """Measure the customers' questions that were held out."""
    ours = shipped(_INTENTS)
    right = measure.accuracy(ours.on_test().chosen, ours.truth(ours.examples.test.examples))
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
    """Measure how many different real lines one thread labels; the slowest release counts."""
    rates = {name: ask.events_per_s(shipped(name).path, shipped(name).release, lines()) for name in (_TRIAGE, _INTENTS)}
    said = ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
    return [row("label_events_per_s", min(rates.values()), "events/s", at_least=60, peer=said)]


def lines() -> list[str]:
    """Return real lines without their headers, as the model gets them; the sample's where there are none."""
    logs = sorted(_LOGHUB.glob("*.log")) or [_SAMPLE]
    texts = [log.read_text(encoding="utf-8", errors="replace").splitlines()[: _LINES // len(logs)] for log in logs]
    return [split(line, NOW_MS).body for text in texts for line in text]


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def row(
    name: str, value: float, unit: str, *, at_least: float | None = None, at_most: float | None = None, peer: str = ""
) -> Row:
    passed = None
    if at_least is not None:
        passed = value >= at_least
    if at_most is not None:
        passed = value <= at_most
    return Row(name=name, value=value, unit=unit, peer=peer, passed=passed)


MEASURED: dict[Callable[[], list[Row]], tuple[str, ...]] = {
    strangers: (
        "triage_macro_f1_gain",
        "triage_macro_f1",
        "triage_binary_f1",
        "triage_ece_strangers",
        "source_f1",
        "technique_accuracy",
    ),
    held_out: ("triage_ece", "injection_flips", "quiet_false_alarms", "foreign_auroc"),
    intents: ("intents_accuracy",),
    recorded: ("flips_vs_16bit", "quantize_minutes"),
    speed: ("label_events_per_s",),
}
