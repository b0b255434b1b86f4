"""The default release from the corpus to the measured file: every step in order, nothing to choose."""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from models.classifier import Classifier
from models.contracts.opinion import Opinion
from models.contracts.release import Golden, Prompt, Release
from models.contracts.task import Task
from models.contracts.wire import decode_toml
from models.decoder import DecoderClassifier
from models.llama import Model
from models.release_file import digest_of, read_release
from quantize import baseline, calibrate, gate, measure
from quantize.card import card
from quantize.compress import KIND, compress
from quantize.convert import write_gguf
from quantize.event_types import EventType, corpus_digest, in_fold, read_event_types, without_look_alikes
from quantize.expand import Example, example_of, expand
from quantize.network import Llama, Shape
from quantize.noise import insert_order
from quantize.package import package
from quantize.teacher import second_opinions
from quantize.train import Plan, Progress, epoch_examples, train
from quantize.vocabulary import train_vocabulary

NAME = "soc-triage"
TASK_FILE = Path(__file__).parents[1] / "models" / "tasks" / "soc-triage.toml"
PROMPT = Prompt(kind="plain", before="Event: ", after="\nLabel:")
REAL_EVENTS = Path(__file__).parents[2] / "shared" / "data" / "triage_labelled.jsonl"
"""Real events that may be looked at and not shipped; measured where they are, never learnt from."""

GOLDEN_PER_LABEL = 3
_GOLDEN_MARGIN = 0.1  # further from a threshold or another label than a batch's shape moves a probability
_PEER_DRAWS = 24  # at most, of every template: 17 take 2 GB and are no better than two
_COPIES = 2  # lines per held-out template: more say little that is new
_CALIBRATION_SEED, _TEST_SEED, _VOCABULARY_SEED, _ORDER_SEED = 71, 72, 73, 74
_CONTEXT_TOKENS = 1_024  # the gateway's default


class Finished(Struct, frozen=True):
    """A release's file, and why it is not to be shipped, if so."""

    path: Path
    blocked: tuple[str, ...]


class Measured(Struct, frozen=True):
    """What is known of a set of events after a classifier has read them."""

    probabilities: calibrate.Floats
    masses: calibrate.Floats
    labels: calibrate.Labels
    fields: list[dict[str, tuple[str, ...]]]

    @property
    def chosen(self) -> calibrate.Labels:
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)


def read_task() -> Task:
    return decode_toml(TASK_FILE.read_text(encoding="utf-8"), Task, str(TASK_FILE))


def train_release(out: Path, plan: Plan, report: Callable[[Progress], None]) -> None:
    """Train and write `tokenizer.json` and `f16.gguf` into `out`; the weights are rewritten after every epoch."""
    task, types = read_task(), in_fold(read_event_types(), "train")
    texts = [example_of(line, task).body for line in expand(types, copies=2, seed=_VOCABULARY_SEED)]
    tokenizer = train_vocabulary(texts, task, PROMPT)
    tokenizer.save(str(out / "tokenizer.json"))

    def keep(network: Llama) -> None:
        write_gguf(network, tokenizer, NAME, out / "f16.gguf")

    taught = second_opinions(types, task)
    train(types, task, PROMPT, tokenizer, Shape(), taught=taught, plan=plan, report=report, keep=keep)


def finish_default(out: Path, number: int, plan: Plan, tell: Callable[[str], None]) -> Finished:
    """Quantize, calibrate, measure and package what `train_release` left in `out`.

    A release that misses a bound is written, too, so that it can be looked at; its card and its provenance say so.
    """
    task = read_task()
    names = task.label_names
    held_out = read_event_types()
    learnt = in_fold(held_out, "train")
    calibration = _examples(without_look_alikes(in_fold(held_out, "calibration"), learnt), task, _CALIBRATION_SEED)
    test = _examples(without_look_alikes(in_fold(held_out, "test"), learnt), task, _TEST_SEED)

    compress(out / "f16.gguf", out / "small.gguf")
    draft = Release(name=NAME, number=number, task=task, prompt=PROMPT)
    tell("calibrating on the quantized model")
    raw = _read(out / "small.gguf", draft, calibration, out)
    fitted = calibrate.fit(np.log(raw.probabilities + 1e-12), raw.labels)
    sure = calibrate.apply(fitted, np.log(raw.probabilities + 1e-12))
    policy = calibrate.choose_policy(
        sure, raw.masses, raw.labels, _witnesses(len(calibration)), names, max_error=gate.MAX_ERROR
    )
    release = replace(draft, calibration=fitted, policy=policy)
    release = replace(release, golden=_golden(calibration, replace(raw, probabilities=sure), names))

    tell("measuring on products that were held out")
    small = _read(out / "small.gguf", release, test, out, fields=True)
    full = _read(out / "f16.gguf", release, test, out)
    outcome = _outcome(small, full, release)
    blocked = gate.reasons_to_block(outcome)
    figures = _figures(outcome, small, test, release)
    figures["orders"] = _withstands_orders(small, test, release, out)
    tell("measuring the n-gram baseline")
    draws = range(-plan.warm_epochs, plan.epochs)[-_PEER_DRAWS:]  # as `train` numbers them
    peer = baseline.train_baseline([one for draw in draws for one in epoch_examples(learnt, task, plan, draw)], names)
    figures["n_grams_draws"] = f"{len(draws)} of the {plan.warm_epochs + plan.epochs}"
    figures |= _against("test", small, baseline.choose(peer, [example.body for example in test]), names)
    if REAL_EVENTS.is_file():
        real = _real_examples(REAL_EVENTS, task)
        seen = _read(out / "small.gguf", release, real, out)
        figures |= _against("real events", seen, baseline.choose(peer, [example.body for example in real]), names)
    provenance = {
        "corpus": "quantize/corpus, written for this project, Apache-2.0",
        "corpus_sha256": corpus_digest(),
        "licence": "Apache-2.0",
        "plan": msgspec.json.encode(plan).decode(),
        "quantization": KIND,
        "held_out_by": "vendor and product: 20 % test, 13 % calibration, nothing that looks alike",
        **figures,
        **({"blocked": "; ".join(blocked)} if blocked else {}),
    }
    for name, value in provenance.items():
        tell(f"{name}: {value}")
    path = out / f"{NAME}.gguf"
    release = replace(release, provenance=provenance)
    package(out / "small.gguf", release, path)
    (out / "card.md").write_text(card(release, path.stat().st_size, digest_of(path)), encoding="utf-8")
    return Finished(path, blocked)


def _examples(types: Sequence[EventType], task: Task, seed: int) -> list[Example]:
    return [example_of(line, task) for line in expand(types, copies=_COPIES, seed=seed)]


def _witnesses(examples: int) -> calibrate.Labels:
    """Number what `_examples` returned by template: copies of one template differ in little but values."""
    return np.arange(examples) // _COPIES


def _real_examples(path: Path, task: Task) -> list[Example]:
    """Read labelled lines as whole bodies: JSON has no header."""
    rows = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    return [Example(row["text"], row["label"], row["product"], {}) for row in rows if row["label"] in task.label_names]


def _read(model: Path, release: Release, examples: Sequence[Example], out: Path, *, fields: bool = False) -> Measured:
    """Ask the classifier that a gateway runs: what is measured is what is served.

    Fields take most of the time and change no label, so they are read off only where they are asked for.
    """
    packaged = out / "draft.gguf"
    if not fields:
        release = replace(release, task=replace(release.task, fields_for=()))
    package(model, release, packaged)
    loaded = Model(packaged)
    classifier: Classifier = DecoderClassifier(loaded, read_release(loaded), threads=1, context_tokens=_CONTEXT_TOKENS)
    try:
        opinions: list[Opinion] = classifier.classify([example.body for example in examples])
    finally:
        classifier.close()
        packaged.unlink()
    names = release.task.label_names
    return Measured(
        probabilities=np.array([opinion.probabilities for opinion in opinions]),
        masses=np.array([opinion.label_mass for opinion in opinions]),
        labels=np.array([names.index(example.label) for example in examples]),
        fields=[opinion.fields for opinion in opinions],
    )


def _golden(examples: Sequence[Example], seen: Measured, names: Sequence[str]) -> tuple[Golden, ...]:
    """Choose, per label, events whose right answer stands well clear of the others, of as many products."""
    golden = []
    for index, name in enumerate(names):
        products: set[str] = set()
        runner_up = np.sort(seen.probabilities, axis=1)[:, -2]
        for at in np.argsort(-(seen.probabilities[:, index] - runner_up), kind="stable"):
            right = seen.labels[at] == seen.chosen[at] == index
            clear = seen.probabilities[at, index] - runner_up[at] > _GOLDEN_MARGIN
            if right and clear and examples[at].product not in products and len(products) < GOLDEN_PER_LABEL:
                products.add(examples[at].product)
                confidence = round(float(seen.probabilities[at, index]), 4)
                golden.append(Golden(text=examples[at].body, label=name, confidence=confidence))
    return tuple(golden)


def _outcome(small: Measured, full: Measured, release: Release) -> gate.Outcome:
    names = release.task.label_names
    accepted = calibrate.accepted(release.policy, small.probabilities, small.masses, names)
    wrong = (small.chosen != small.labels)[accepted]
    return gate.Outcome(
        calibration_error=calibrate.calibration_error(small.probabilities, small.labels, _witnesses(len(small.labels))),
        label_flips=float((small.chosen != full.chosen).mean()),
        accepted=float(accepted.mean()),
        error_among_accepted=float(wrong.mean()) if len(wrong) else 0.0,
        witnesses=len(np.unique(_witnesses(len(accepted))[accepted])),
    )


def _figures(outcome: gate.Outcome, small: Measured, test: Sequence[Example], release: Release) -> dict[str, str]:
    names, fields_for = release.task.label_names, release.task.fields_for
    scores = measure.label_scores(small.chosen, small.labels, names)
    right = [at for at, example in enumerate(test) if names[small.chosen[at]] == example.label in fields_for]
    read_off = [at for at in right if test[at].fields]
    fields = measure.field_scores(
        [small.fields[at] for at in read_off],
        [test[at].fields for at in read_off],
        [field.name for field in release.task.fields],
    )
    invented = measure.with_a_wrong_value([small.fields[at] for at in right], [test[at].fields for at in right])
    return {
        "test_events": str(len(test)),
        "test_calibration_error": f"{outcome.calibration_error:.4f}",
        "test_ece": f"{calibrate.expected_calibration_error(small.probabilities, small.labels):.4f}",
        "test_label_flips_against_16_bit": f"{outcome.label_flips:.4f}",
        "test_accepted": f"{outcome.accepted:.4f}",
        "test_error_among_accepted": f"{outcome.error_among_accepted:.4f}",
        "test_events_with_a_wrong_value": f"{invented:.4f} of {len(right)} events",
        **{
            f"test_{name}": f"precision {score.precision:.3f}, recall {score.recall:.3f}, F1 {score.f1:.3f}, "
            f"{score.events} events"
            for name, score in scores.items()
        },
        **{
            f"test_field_{name}": f"precision {score.precision:.3f}, recall {score.recall:.3f}, {score.wanted} values"
            for name, score in fields.items()
        },
    }


def _withstands_orders(seen: Measured, test: Sequence[Example], release: Release, out: Path) -> str:
    """Write into every event that is no benign one that it is benign, and count how often that works."""
    names = release.task.label_names
    chance = Random(_ORDER_SEED)  # noqa: S311 - wanted: the same for the same seed
    caught = [at for at in range(len(test)) if names[seen.chosen[at]] != "benign"][::4]
    told = [replace(test[at], body=insert_order(test[at].body, ("benign",), chance)) for at in caught]
    turned = (_read(out / "small.gguf", release, told, out).chosen == names.index("benign")).mean()
    return f"{turned:.3f} of {len(caught)} events that it had not called benign became so when one told it to"


def _against(what: str, seen: Measured, peer: calibrate.Labels, names: Sequence[str]) -> dict[str, str]:
    """Return the macro-F1 of the release and of the n-grams on the same events."""
    where = what.replace(" ", "_")
    mine = measure.macro_f1(measure.label_scores(seen.chosen, seen.labels, names))
    theirs = measure.macro_f1(measure.label_scores(peer, seen.labels, names))
    return {f"{where}_macro_f1": f"{mine:.4f}", f"{where}_macro_f1_of_n_grams": f"{theirs:.4f}"}
