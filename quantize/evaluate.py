"""A model to a calibrated release, and a release to its figures; on events of which nothing was learnt."""

import json
import multiprocessing
import os
import platform
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from models.calibration import logarithms
from models.contracts.release import Golden, Release, SecondOpinion
from models.contracts.task import Task
from models.llama import Model
from models.opening import as_second
from models.release_file import SHIPPED, read_release, second_path
from quantize import ask, baseline, calibrate, compress, gate, injection, measure
from quantize.ask import Answers
from quantize.examples import Examples, HeldOut
from quantize.expand import Example
from quantize.figures import Figures, Injections, Peer
from quantize.named_release import named_release
from quantize.product_groups import product_groups
from quantize.progress import Progress
from quantize.recipe import Candidate, Recipe
from quantize.terminal import say_warnings_only

GOLDEN_PER_LABEL = 3
_MOST_GOLDEN = 60
_GOLDEN_MARGIN = 0.1  # further above the next label than a batch's shape moves a probability
_MOST_TO_CHOOSE_BY = 2000  # events, for each candidate: of fewer, six that flip are 1 %, and chance
_MOST_FOR_SPEED = 200
_MOST_FOR_MEMORY = 64  # a whole batch, as under a backlog
_INJECTION_SEED = 76
_UNTOLD = measure.Estimate(1.0, 0.0, 1.0)  # where witnesses are too few: the largest error that there can be


class Labels(Struct, frozen=True):
    """The label of every event that candidates are chosen by, as an index among the task's."""

    chosen: list[int]


class Calibrated(Struct, frozen=True):
    """A release before it was measured."""

    release: Release
    trials: list[compress.Trial]
    chosen: int


def labels_of(model: Path, draft: Release, found: Examples, progress: Progress) -> Labels:
    """Return what the 16-bit model says of the events that candidates are chosen by."""
    answers = ask.ask(model, draft, _to_choose_by(found).bodies, tick=progress.bar("the 16-bit model"))
    return Labels(answers.chosen.tolist())


def trial_of(
    candidate: Candidate, file: Path, before: Labels, draft: Release, *, found: Examples, progress: Progress
) -> compress.Trial:
    """Measure a candidate on events that nothing was learnt from."""
    few = _to_choose_by(found)
    after = ask.ask(file, draft, few.bodies, tick=progress.bar(candidate.title))
    truth = _truth(few.examples, draft.task.label_names)
    fitted = calibrate.left_out(logarithms(after.probabilities[None]), truth, few.witnesses)
    trial = compress.Trial(
        candidate=candidate,
        megabytes=file.stat().st_size / 1e6,
        label_flips=float((after.chosen != np.array(before.chosen)).mean()),
        calibration_error=_calibration_error(fitted, truth, few.witnesses).value,
        events_per_s=ask.events_per_s(file, draft, _spread(few.bodies)),
        fallbacks=_fallbacks(file),
    )
    progress.tell(
        f"{candidate.title}: {trial.megabytes:.1f} MB, {trial.label_flips:.2%} flips, "
        f"{trial.events_per_s:.0f} events/s, calibration error {trial.calibration_error:.3f}"
    )
    return trial


def calibrated(file: Path, draft: Release, max_error: float, *, found: Examples, progress: Progress) -> Release:
    """Return the release with calibration, first policy and golden events, by events that nothing was learnt from."""
    fold, names = found.calibration, draft.task.label_names
    raw = ask.ask(file, draft, fold.bodies, tick=progress.bar("calibrating"))
    readers = [raw]
    if draft.second_opinion is not None:
        path, second = _second(draft, draft.second_opinion)
        readers.append(ask.ask(path, as_second(second), fold.bodies, tick=progress.bar(second.title)))
    said, labels = logarithms(np.stack([each.probabilities for each in readers])), _truth(fold.examples, names)
    calibration, policy = calibrate.fit_and_choose(said, raw.masses, labels, fold.witnesses, names, max_error=max_error)
    sure = calibrate.apply(calibration, said)  # what the release itself will say of its golden events
    golden = _golden(fold.examples, replace(raw, probabilities=sure), labels, names)
    return replace(draft, calibration=calibration, policy=policy, golden=golden)


def measured(
    wanted: Recipe, draft: Calibrated, small: Path, whole: Path, *, found: Examples, progress: Progress
) -> Figures:
    """Measure on what nothing was learnt from and nothing was chosen by."""
    release, test = draft.release, found.test
    task, names = release.task, release.task.label_names
    kinds, labels = len(names), _truth(test.examples, names)
    seen = ask.ask(small, release, test.bodies, fields=True, tick=progress.bar("held-out events"))
    accepted = calibrate.accepted(release.policy, seen.probabilities, seen.masses, names)
    wrong = seen.chosen != labels
    read_off = _with_known_fields(found, task, seen.chosen)
    given, wanted_fields = [seen.fields[at] for at in read_off], [test.examples[at].fields for at in read_off]
    trial = draft.trials[draft.chosen]
    peers = [*_simpler(found, release.task, labels, progress), *_older(release, found, progress)]
    second = None
    if release.second_opinion is not None:
        path, other = _second(release, release.second_opinion)
        second = ask.ask(path, other, test.bodies, tick=progress.bar(other.title)).chosen
        peers.append(_peer(f"{other.title}, which gives the second opinion", second, labels, kinds))
    return Figures(
        release=release.title,
        labels=list(names),
        events=len(labels),
        witnesses=len(np.unique(test.witnesses)),
        accuracy=measure.estimate_of_share(~wrong, test.witnesses),
        macro_f1=measure.estimate_of_macro_f1(seen.chosen, labels, test.witnesses, kinds),
        ece=measure.estimate_of_error(
            lambda at: calibrate.expected_calibration_error(seen.probabilities[at], labels[at]), test.witnesses, ~wrong
        ),
        calibration_error=_calibration_error(seen.probabilities, labels, test.witnesses),
        by_label=measure.label_scores(seen.chosen, labels, names),
        confusion=measure.confusion(seen.chosen, labels, kinds),
        reliability=measure.reliability(seen.probabilities, labels),
        sources=measure.by_source(seen.chosen, labels, [one.product for one in test.examples], kinds),
        peers=peers,
        gain_over_second=None if second is None else _gain(seen.chosen, second, labels, found),
        fields=measure.field_scores(given, wanted_fields, [field.name for field in task.fields]) if read_off else {},
        wrong_values=measure.with_a_wrong_value(given, wanted_fields),
        label_flips=_label_flips(wanted, release, whole, seen, bodies=test.bodies, progress=progress),
        accepted=float(accepted.mean()),
        error_among_accepted=float(wrong[accepted].mean()) if accepted.any() else 0.0,
        accepted_witnesses=len(np.unique(test.witnesses[accepted])),
        injections=_injections(wanted.severity, release, small, seen, bodies=test.bodies, progress=progress),
        foreign_auroc=_foreign_auroc(release, small, seen, found.foreign_test, progress),
        foreign_events=len(found.foreign_test),
        quiet_false_alarms=_false_alarms(release, small, found.quiet, progress),
        quiet_events=0 if found.quiet is None else len(found.quiet.examples),
        trials=draft.trials,
        chosen=trial.candidate.title,
        megabytes=trial.megabytes,
        events_per_s=ask.events_per_s(small, release, _spread(test.bodies)),
        resident_megabytes=_resident_alone(small, release, _spread(test.bodies, _MOST_FOR_MEMORY)) / 1e6,
        machine=machine(),
    )


def _to_choose_by(found: Examples) -> HeldOut:
    fold = found.calibration
    step = -(-len(fold.examples) // _MOST_TO_CHOOSE_BY)
    return HeldOut(fold.examples[::step], fold.witnesses[::step])


def _spread(bodies: Sequence[str], most: int = _MOST_FOR_SPEED) -> Sequence[str]:
    """Return events from all over the fold: it may be sorted by vendor, and the first are alike."""
    return bodies[:: -(-len(bodies) // most)]


def _with_known_fields(found: Examples, task: Task, chosen: calibrate.Labels) -> list[int]:
    """Return the test's events with the right label of which it is known what fields they have.

    Of event types all of it is known, and a value where none is wanted is invented. In a labelled event without fields
    somebody may have left them out.
    """
    return [
        at
        for at, example in enumerate(found.test.examples)
        if task.label_names[chosen[at]] == example.label in task.fields_for and (found.types or example.fields)
    ]


def _calibration_error(
    probabilities: calibrate.Floats, labels: calibrate.Labels, witnesses: calibrate.Labels
) -> measure.Estimate:
    return calibrate.calibration_error(probabilities, labels, witnesses) or _UNTOLD


def _label_flips(
    wanted: Recipe, release: Release, whole: Path, seen: Answers, *, bodies: Sequence[str], progress: Progress
) -> float | None:
    """Return the share of labels that the 16-bit model gives otherwise; a model that came finished was never one."""
    if wanted.base.kind == "gguf":
        return None
    before = ask.ask(whole, release, bodies, tick=progress.bar("the same by the 16-bit model"))
    return float((seen.chosen != before.chosen).mean())


def _injections(
    severity: Sequence[str], release: Release, small: Path, seen: Answers, *, bodies: Sequence[str], progress: Progress
) -> Injections | None:
    """Write attacks into the events that were not called harmless, and count the verdicts that they turn."""
    names = release.task.label_names
    before = [names[at] for at in seen.chosen]
    attacks = injection.cases(bodies, before, release.task, severity, _INJECTION_SEED)
    if not attacks:
        return None
    answers = ask.ask(small, release, [case.text for case in attacks], tick=progress.bar("injected texts"))
    after = [names[at] for at in answers.chosen]
    return injection.outcome(attacks, [before[case.event] for case in attacks], after, severity)


def _foreign_auroc(
    release: Release, small: Path, seen: Answers, texts: Sequence[str], progress: Progress
) -> float | None:
    """Return how well the label mass tells the task's events from texts of other kinds."""
    if not texts:
        return None
    return measure.auroc(seen.masses, ask.ask(small, release, texts, tick=progress.bar("foreign texts")).masses)


def _false_alarms(release: Release, small: Path, quiet: HeldOut | None, progress: Progress) -> measure.Estimate | None:
    """Return the share of plain operation that gets another label than it should."""
    if quiet is None:
        return None
    answers = ask.ask(small, release, quiet.bodies, tick=progress.bar("plain operation"))
    alarms = answers.chosen != _truth(quiet.examples, release.task.label_names)
    return measure.estimate_of_share(alarms, quiet.witnesses)


def _simpler(found: Examples, task: Task, labels: calibrate.Labels, progress: Progress) -> list[Peer]:
    """Train and measure what is simpler."""
    progress.tell("training the n-gram baseline on the same events")
    names = task.label_names
    learnt = baseline.examples_for_peers(found, task)
    majority = np.full(len(labels), np.bincount(_truth(learnt, names), minlength=len(names)).argmax())
    peer = baseline.train_baseline(learnt, names, evenly=bool(found.types))
    n_grams = baseline.choose(peer, found.test.bodies)
    said = {"majority": majority, gate.N_GRAMS: n_grams}
    return [_peer(name, chosen, labels, len(names)) for name, chosen in said.items()]


def _peer(name: str, chosen: calibrate.Labels, labels: calibrate.Labels, kinds: int) -> Peer:
    return Peer(name, measure.accuracy(chosen, labels), measure.macro_f1_of(chosen, labels, kinds))


def _older(release: Release, found: Examples, progress: Progress) -> list[Peer]:
    """Measure the release that is shipped under this name now, if it is older and answers with the same labels.

    Where it held out other events, it may have learnt from these, and its name says so.
    """
    path = SHIPPED / f"{release.name}.gguf"
    if not path.is_file():
        return []
    with Model(path, vocabulary_only=True) as model:
        older = read_release(model)
    names = release.task.label_names
    if older.number >= release.number or older.task.label_names != names:
        return []
    chosen = ask.ask(path, older, found.test.bodies, tick=progress.bar(older.title)).chosen
    labels = _truth(found.test.examples, names)
    same = held_out_the_same(older, found)
    name = older.title if same else f"{older.title}, which may have learnt from some of these events"
    return [_peer(name, chosen, labels, len(names))]


def _second(release: Release, wanted: SecondOpinion) -> tuple[Path, Release]:
    """Return the file and the release that give the second opinion, as they are when asked alone."""
    return named_release(str(second_path(release, wanted, SHIPPED)))


def _gain(
    chosen: calibrate.Labels, second: calibrate.Labels, labels: calibrate.Labels, found: Examples
) -> measure.Estimate:
    """Return by how much more often one is right than the other; of event types the interval is over vendors."""
    products = [one.product for one in found.test.examples]
    witnesses = found.test.witnesses
    if found.types:
        groups = product_groups(products)
        witnesses = np.unique([groups[product][0] for product in products], return_inverse=True)[1]
    more = (chosen == labels).astype(np.float64) - (second == labels)
    return measure.estimate(lambda at: float(more[at].mean()), witnesses)


def held_out_the_same(older: Release, found: Examples) -> bool:
    """Tell whether a release was measured on these events; one that does not say it was made from the same data."""
    told = older.provenance
    if "held_out_sha256" in told:
        return told["held_out_sha256"] == found.test.digest
    return told.get("data_sha256") == found.digest


def _golden(
    found: Sequence[Example], seen: Answers, labels: calibrate.Labels, names: Sequence[str]
) -> tuple[Golden, ...]:
    """Choose, per label, events whose right answer stands well clear of the others, of as many products.

    Where there are more labels than golden events, these are of labels from all over the task.
    """
    golden = []
    runner_up = np.sort(seen.probabilities, axis=1)[:, -2]
    each = max(1, min(GOLDEN_PER_LABEL, _MOST_GOLDEN // len(names)))
    for index, name in enumerate(names):
        products: set[str] = set()
        for at in np.argsort(-(seen.probabilities[:, index] - runner_up), kind="stable"):
            right = labels[at] == seen.chosen[at] == index
            clear = seen.probabilities[at, index] - runner_up[at] > _GOLDEN_MARGIN
            if right and clear and found[at].product not in products and len(products) < each:
                products.add(found[at].product)
                confidence = round(float(seen.probabilities[at, index]), 4)
                golden.append(Golden(text=found[at].body, label=name, confidence=confidence))
    kept = min(len(golden), _MOST_GOLDEN)
    return tuple(golden[at * len(golden) // kept] for at in range(kept))


def _truth(found: Sequence[Example], names: Sequence[str]) -> calibrate.Labels:
    return np.array([names.index(example.label) for example in found], dtype=np.int64)


def _fallbacks(file: Path) -> dict[str, list[str]]:
    note = file.with_name("compressed.json")
    return json.loads(note.read_bytes())["fallbacks"] if note.is_file() else {}


def _resident_alone(model: Path, release: Release, bodies: Sequence[str]) -> int:
    """Return the bytes of memory that opening a release and asking it about `bodies` take.

    In a process of its own: in this one, what was opened and closed before has left room that would be used again.
    """
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh, initializer=say_warnings_only) as alone:
        return alone.submit(_growth, model, release, bodies).result()


def _growth(model: Path, release: Release, bodies: Sequence[str]) -> int:
    """Return how many more bytes this process holds once it has opened a release and asked it about `bodies`."""
    before = _resident()
    with ask.Asked(model, release, fields=True, threads=os.cpu_count() or 1) as classifier:
        ask.answers_of(classifier, bodies)
        return _resident() - before


def _resident() -> int:
    """Return the bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def machine() -> str:
    """Return the processor and how many threads it runs: speed and memory are of them."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {os.cpu_count()} threads"
    return platform.machine()
