"""What a release's figures amount to, in words: for its card and its report. Pure."""

import math

from msgspec import Struct

from models.contracts.release import Calibration, Release
from quantize.figures import Figures
from quantize.gate import limits_of, most_wrong
from quantize.measure import Estimate
from quantize.recipe import Recipe, TrainDecoder, TrainEncoder, TrainFromScratch, TrainNothing

NOT_MEASURED = "not measured"
_NOT_STATED = "not stated"
_MOST_NAMES = 6  # in a sentence
_MOST_BIASES = 16  # that are listed one by one


class Row(Struct, frozen=True):
    """A figure as it is printed; what is empty does not exist for it."""

    what: str
    found: str
    interval: str = ""
    limit: str = ""


class LabelRow(Struct, frozen=True):
    """A label as it is printed."""

    name: str
    precision: str
    recall: str
    f1: str
    share: float  # F1, for a bar and for sorting
    events: int
    accepted_from: str


def decimal(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.3f}"


def percent(share: float | None) -> str:
    return NOT_MEASURED if share is None else f"{100 * share:.2f} %"


def amount(value: float, unit: str) -> str:
    """Nothing is so small or so slow that it is 0: that stands for what was not measured."""
    return f"{value:,.{0 if value >= 100 else 1}f} {unit}" if value else NOT_MEASURED


def between(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.low:.3f} to {estimate.high:.3f}"


def architecture(recipe: Recipe) -> str:
    """Return what kind of model it is and what was trained of it, as the beginning of a sentence."""
    base = recipe.base.package or recipe.base.maven or recipe.base.path
    match recipe.training:
        case TrainFromScratch():
            return "A small Llama, trained from scratch"
        case TrainEncoder(layers=layers, frozen_layers=frozen, train_embeddings=embeddings):
            depth = f"its lowest {layers} layers" if layers else "all of its layers"
            depth += f" but the lowest {frozen}" if frozen else ""
            rest = "its embeddings, too" if embeddings else "its embeddings are as they were"
            return (
                f"An encoder, `{base}`, of which {depth} were fine-tuned ({rest}), "
                "under a linear head over the mean of its tokens' vectors"
            )
        case TrainDecoder(adapters=rank):
            how = f"by low-rank adapters of rank {rank}, merged since" if rank else "with all of its weights"
            return f"A causal model, `{base}`, trained {how}, on the answers behind its own chat template"
        case _:
            kind = {"encoder": "An encoder", "decoder": "A causal model"}.get(recipe.base.kind, "A finished model")
            return f"{kind}, `{base}`, calibrated, measured and packaged here; nothing of it was trained here"


def quantization(recipe: Recipe, figures: Figures) -> str:
    """Return in which types the weights are written."""
    return "the types it came in" if recipe.base.kind == "gguf" else figures.chosen or "not quantized"


def unseen(recipe: Recipe) -> str:
    """Return what is known of whether the held-out events were learnt from."""
    match recipe.training:
        case TrainNothing():
            return "none of them learnt from here, though perhaps before"
        case TrainFromScratch(teacher=teacher) if teacher:
            return "none of them learnt from, though perhaps by its teacher"
        case _:
            return "none of them learnt from"


def made_from(recipe: Recipe, release: Release, figures: Figures) -> list[tuple[str, str]]:
    """Return the origins, licences and digests, by what they are of."""
    task, data, base = release.task, recipe.data, recipe.base
    fields = f", {len(task.fields)} field{'s' if len(task.fields) > 1 else ''}" if task.fields else ""
    parted = "vendor and product" if data.kind == "event-types" else f"`{data.group_by}`" if data.group_by else "text"
    what = "event types, from which events are generated" if data.kind == "event-types" else "labelled events"
    rows = [
        ("recipe", f"`{recipe.name}`, number {recipe.number}, seed {recipe.seed}"),
        ("task", f"`{task.name}`: {len(task.label_names)} labels{fields}"),
        ("data", f"`{data.path}`: {what}, held out by {parted}"),
        ("held out", f"{figures.events} events of {figures.witnesses} witnesses, {unseen(recipe)}"),
        ("data, SHA-256", release.provenance.get("data_sha256", _NOT_STATED)),
        ("data, licence", data.licence),
        ("data, attribution", data.attribution),
    ]
    if base.kind != "none":
        rows += [
            ("base", f"`{base.path}`" + (f" in `{inside}`" if (inside := base.package or base.maven) else "")),
            ("base, SHA-256", base.sha256 or _NOT_STATED),
            ("base, licence", base.licence or _NOT_STATED),
        ]
    if second := release.second_opinion:
        rows.append(("second opinion", f"`{second.release}`, SHA-256 {second.sha256}; it reads every event as well"))
    return [*rows, ("licence of the release", recipe.licence)]


def rows(recipe: Recipe, release: Release, figures: Figures) -> list[Row]:
    """Return the figures that have no peer, with the limits of the recipe."""
    gate, size = recipe.gate, limits_of(recipe)
    injections, quiet, gain = figures.injections, figures.quiet_false_alarms, figures.gain_over_second
    over_second = Row(
        "accuracy above the second opinion's alone; interval over vendors",
        decimal(None if gain is None else gain.value),
        between(gain),
        "" if gate.min_gain_over_second_opinion is None else f"from {gate.min_gain_over_second_opinion:.3f} on",
    )
    return [
        *([] if release.second_opinion is None else [over_second]),
        Row(
            "calibration error (root mean square, less what chance adds)",
            decimal(figures.calibration_error.value),
            between(figures.calibration_error),
            _at_most(gate.max_calibration_error),
        ),
        Row("the same as plain ECE, with what chance adds", decimal(figures.ece.value), between(figures.ece)),
        Row(
            f"labels that differ from the 16-bit model's{_rounded(recipe)}",
            percent(figures.label_flips),
            limit=_at_most_percent(None if figures.label_flips is None else gate.max_label_flips),
        ),
        Row("accepted by the first policy", percent(figures.accepted)),
        Row(
            "wrong among the accepted",
            percent(figures.error_among_accepted) if figures.accepted else "nothing is accepted",
            limit=_at_most_wrong(recipe, figures),
        ),
        Row(
            f"injected texts that got their event {_milder(recipe, release)}",
            percent(None if injections is None else injections.flips),
            limit=_at_most_percent(gate.max_injection_flips),
        ),
        Row(
            "label mass against foreign text, AUROC",
            decimal(figures.foreign_auroc),
            limit=_at_least(gate.min_foreign_auroc),
        ),
        Row(
            "false alarms on plain operation",
            percent(None if quiet is None else quiet.value),
            "" if quiet is None else f"{100 * quiet.low:.2f} to {100 * quiet.high:.2f} %",
            _at_most_percent(gate.max_quiet_false_alarms),
        ),
        Row(
            "size",
            amount(figures.megabytes, "MB"),
            limit=f"at most {size.max_megabytes:g} MB" if math.isfinite(size.max_megabytes) else "",
        ),
        Row(
            "speed, one thread, different events",
            amount(figures.events_per_s, "events/s"),
            limit=f"at least {size.min_events_per_s:g} events/s" if size.min_events_per_s else "",
        ),
        Row("memory, to open it and read a few dozen events", amount(figures.resident_megabytes, "MB")),
    ]


def limits_of_scores(recipe: Recipe) -> str:
    """Return what the recipe wants of accuracy and macro-F1, or nothing."""
    gate = recipe.gate
    wanted = (
        ("accuracy", gate.min_accuracy, ""),
        ("macro-F1", gate.min_macro_f1, ""),
        ("macro-F1", gate.min_gain_over_n_grams, " more than the n-grams'"),
    )
    said = [f"{what} {_at_least(least)}{than}" for what, least, than in wanted if least is not None]
    return f"The recipe wants {', '.join(said)}." if said else ""


def verdict_on_peers(figures: Figures) -> list[str]:
    """Say of every peer where it is better than the release; or that none is."""
    if not figures.peers:
        return ["No peer was measured."]
    better = [
        f"By {what}, the peer `{peer.name}` is better than this release: {theirs:.3f} to {ours.value:.3f}, "
        f"{'within' if theirs <= ours.high else 'above'} this release's 95 % interval."
        for peer in figures.peers
        for what, theirs, ours in (
            ("accuracy", peer.accuracy, figures.accuracy),
            ("macro-F1", peer.macro_f1, figures.macro_f1),
        )
        if theirs > ours.value
    ]
    return better or ["No peer is better, neither by accuracy nor by macro-F1."]


def label_rows(release: Release, figures: Figures) -> list[LabelRow]:
    """Return the labels in the task's order.

    A label that does not occur has no recall, and one that is never given no precision.
    """
    found = []
    for index, name in enumerate(figures.labels):
        scores = figures.by_label[name]
        given = sum(row[index] for row in figures.confusion)
        at = release.policy.accepts_from(name)
        found.append(
            LabelRow(
                name=name,
                precision=decimal(scores.precision) if given else "never given",
                recall=decimal(scores.recall if scores.events else None),
                f1=decimal(scores.f1 if scores.events else None),
                share=scores.f1,
                events=scores.events,
                accepted_from="never" if math.isinf(at) else f"{at:.2f}",
            )
        )
    return found


def worst_first(labels: list[LabelRow]) -> list[LabelRow]:
    """Return the labels by rising F1; those that do not occur say nothing and come last."""
    return sorted(labels, key=lambda row: (row.events == 0, row.share, row.name))


def calibration(fitted: Calibration) -> str:
    """Return how confidences were mended, as a sentence."""
    second = f"; the second opinion has the weight {fitted.second_weight:.3f}" if fitted.second_weight else ""
    if not fitted.bias:
        return f"Temperature {fitted.temperature:.3f}, no biases{second}."
    if len(fitted.bias) > _MOST_BIASES:
        span = f"between {min(fitted.bias):.3f} and {max(fitted.bias):.3f}"
        return f"Temperature {fitted.temperature:.3f}, {len(fitted.bias)} biases {span}{second}."
    return f"Temperature {fitted.temperature:.3f}, biases {', '.join(f'{one:.3f}' for one in fitted.bias)}{second}."


def on_calibration(recipe: Recipe, figures: Figures) -> list[str]:
    """Say it where the calibration error is not told, or too uncertain for its limit."""
    error, limit = figures.calibration_error, recipe.gate.max_calibration_error
    if error.high >= 1:
        return [f"{figures.witnesses} witnesses are too few to tell its calibration error, which counts as 1."]
    if not error.low < limit < error.high:
        return []
    said = f"Its calibration error may lie anywhere from {between(error)}, and its limit is {limit:.3f}"
    return [f"{said}: on which side of that the figure came out is chance, and another number of threads may turn it."]


def on_injections(recipe: Recipe, release: Release, figures: Figures) -> str:
    """Return what injected texts do, as a sentence."""
    found = figures.injections
    if found is None or not found.cases:
        return "What injected texts do to it was not measured."
    harmless = recipe.severity[0] if recipe.severity else release.task.default_label
    return (
        f"Of {found.cases} texts that a stranger wrote into events which it had not called `{harmless}`, "
        f"{percent(found.flips)} got their event {_milder(recipe, release)}."
    )


def on_foreign(figures: Figures) -> str:
    """Return how well texts of other kinds are told apart, as a sentence."""
    if figures.foreign_auroc is None:
        return "How it treats texts of other kinds was not measured."
    return (
        f"An event of the task has a higher label mass than one of {figures.foreign_events} texts of other kinds in "
        f"{percent(figures.foreign_auroc)} of the pairs (AUROC {figures.foreign_auroc:.3f}; a guess has 0.500)."
    )


def on_quiet(figures: Figures) -> str:
    """Return how often plain operation raises an alarm, as a sentence."""
    quiet = figures.quiet_false_alarms
    if quiet is None:
        return "How often plain operation raises a false alarm was not measured."
    return (
        f"{percent(quiet.value)} of {figures.quiet_events} events of plain operation raise a false alarm "
        f"(95 % interval {100 * quiet.low:.2f} to {100 * quiet.high:.2f} %)."
    )


def on_fields(release: Release, figures: Figures) -> str:
    """Return how often a value is wrong, as a sentence."""
    if not release.task.fields:
        return "The task has no fields."
    if not figures.fields:
        return "Its fields were not measured."
    return (
        f"Where the label was right and the fields are known, {percent(figures.wrong_values)} of the events have a "
        "value that is invented or another field's."
    )


def cautions(recipe: Recipe, release: Release, figures: Figures, blocked: int) -> list[str]:
    """Return what the release is not, as far as figures and recipe tell."""
    said = []
    if blocked:
        said.append(f"It misses {blocked} of its recipe's limits, as the top of this page says.")
    if any(peer.accuracy > figures.accuracy.value or peer.macro_f1 > figures.macro_f1.value for peer in figures.peers):
        said += verdict_on_peers(figures)
    said += _unknown_origins(recipe) + on_calibration(recipe, figures)
    came_finished = isinstance(recipe.training, TrainNothing)
    trained = "Measured" if came_finished else "Trained and measured"
    if recipe.data.kind == "event-types":
        new = "The vendors and products of the test are new to it; the hands that wrote their templates are not. "
        said.append(
            f"{trained} on generated events. {'' if came_finished else new}Real streams are harder, and nothing was "
            "verified against the products."
        )
        mildest = (
            f" Where most are `{recipe.severity[0]}`, the other labels are right less often." if recipe.severity else ""
        )
        said.append(f"Its probabilities are those of a stream in which every label is equally frequent.{mildest}")
    else:
        said.append(
            f"{trained} on events of one collection, `{recipe.data.path}`. Events that come from elsewhere, or are "
            "labelled by other hands, are harder."
        )
    said += _weak_labels(release, figures)
    said.append(
        "The thresholds hold for events like those they were chosen on. A guarantee for your stream needs a uniform "
        "sample of it."
    )
    if figures.fields and figures.wrong_values:
        said.append(on_fields(release, figures))
    if figures.injections is None or not figures.injections.cases:
        said.append(on_injections(recipe, release, figures))
    elif figures.injections.flips:
        said.append(f"{on_injections(recipe, release, figures)} Who writes into an event has a say in its verdict.")
    if figures.foreign_auroc is None:
        said.append(on_foreign(figures))
    if figures.quiet_false_alarms is None or figures.quiet_false_alarms.value:
        said.append(on_quiet(figures))
    return said


def _unknown_origins(recipe: Recipe) -> list[str]:
    """Say whose learning nobody here has seen: figures are too good where events were learnt from."""
    match recipe.training:
        case TrainNothing():
            before = "What it was trained on before it came here is not known."
            return [f"{before} If events of the test were among that, it is worse than its figures."]
        case TrainFromScratch(teacher=teacher) if teacher:
            opinions = f"It learnt from opinions of the release `{teacher}`."
            return [f"{opinions} If that one was trained on events of the test, this one is worse than its figures."]
        case _:
            return []


def _weak_labels(release: Release, figures: Figures) -> list[str]:
    labels = label_rows(release, figures)
    worst = worst_first(labels)[0]
    absent = [row.name for row in labels if not row.events]
    never = [row.name for row in labels if row.accepted_from == "never"]
    said = [
        f"Weakest at `{worst.name}`: precision {worst.precision}, recall {worst.recall} on {worst.events} events.",
    ]
    if absent:
        said.append(
            f"No held-out event has the label {_names(absent)}: nothing is known of it; it is a 0 in the macro-F1."
        )
    if never:
        said.append(
            f"A verdict of {_names(never)} is never accepted, however confident, and goes to {release.policy.doubtful}."
        )
    return said


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} others" if len(names) > _MOST_NAMES else ""
    return ", ".join(f"`{name}`" for name in names[:_MOST_NAMES]) + more


def _milder(recipe: Recipe, release: Release) -> str:
    return "a milder label" if recipe.severity else f"the label `{release.task.default_label}`"


def _rounded(recipe: Recipe) -> str:
    """Say where the 16-bit model has paid for the 4 bits already: the figure does not show what that cost."""
    match recipe.training:
        case TrainEncoder(rounded_epochs=rounded) if rounded:
            return ", which was itself trained with 4-bit weights (ADR 0019)"
        case _:
            return ""


def _at_most(limit: float) -> str:
    return f"at most {limit:.3f}"


def _at_most_wrong(recipe: Recipe, figures: Figures) -> str:
    limit = _at_most_percent(recipe.gate.max_error_among_accepted)
    most = percent(most_wrong(figures, recipe.gate))
    return f"{limit}; {most} with what chance adds" if figures.accepted else limit


def _at_least(limit: float | None) -> str:
    return "" if limit is None else f"at least {limit:.3f}"


def _at_most_percent(limit: float | None) -> str:
    return "" if limit is None else f"at most {100 * limit:g} %"
