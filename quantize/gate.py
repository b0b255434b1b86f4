"""A release's figures against a recipe's limits: every reason to hold it back, or none. Pure."""

import math

from quantize.figures import Figures
from quantize.recipe import Compression, Gate, Recipe

_DEVIATIONS = 2  # of sampling error above `max_error_among_accepted`: what a sound release shows by chance
_NO_LIMITS = Compression(max_megabytes=float("inf"))
N_GRAMS = "character n-grams, logistic regression"


def limits_of(recipe: Recipe) -> Compression:
    """Return the limits of size and speed; none for a finished model, which is packaged as large as it came."""
    return _NO_LIMITS if recipe.base.kind == "gguf" else recipe.quantization


def reasons_to_block(figures: Figures, gate: Gate, limits: Compression = _NO_LIMITS) -> tuple[str, ...]:
    """Return what misses its limit, a sentence each; a limit for what was not measured is missed."""
    # Of a model that came finished there is no 16-bit one that its labels could differ from.
    flips = 0.0 if figures.label_flips is None else figures.label_flips
    peer = figures.peer(N_GRAMS)
    gain = None if peer is None else figures.macro_f1.value - peer.macro_f1
    injections = None if figures.injections is None else figures.injections.flips
    quiet = None if figures.quiet_false_alarms is None else figures.quiet_false_alarms.value
    second = None if figures.gain_over_second is None else figures.gain_over_second.low
    at_most = (
        ("calibration error", figures.calibration_error.value, gate.max_calibration_error),
        ("labels that differ from the 16-bit model's", flips, gate.max_label_flips),
        ("wrong among the accepted", figures.error_among_accepted, most_wrong(figures, gate)),
        ("events that an injected text made milder", injections, gate.max_injection_flips),
        ("false alarms on plain operation", quiet, gate.max_quiet_false_alarms),
        ("megabytes", figures.megabytes, limits.max_megabytes),
    )
    at_least = (
        ("accuracy", figures.accuracy.value, gate.min_accuracy),
        ("macro-F1", figures.macro_f1.value, gate.min_macro_f1),
        ("macro-F1 above the n-grams'", gain, gate.min_gain_over_n_grams),
        ("accuracy above the second opinion's alone, at least", second, gate.min_gain_over_second_opinion),
        ("AUROC of the label mass against foreign text", figures.foreign_auroc, gate.min_foreign_auroc),
        ("events a second on one thread", figures.events_per_s, limits.min_events_per_s),
    )
    reasons = [
        f"{what}: {_found(found)}, wanted at most {most:.4f}"
        for what, found, most in at_most
        if most is not None and (found is None or not found <= most)
    ]
    reasons += [
        f"{what}: {_found(found)}, wanted at least {least:.4f}"
        for what, found, least in at_least
        if least is not None and (found is None or not found >= least)
    ]
    return tuple(reasons)


def most_wrong(figures: Figures, gate: Gate) -> float:
    """Return which share of the accepted may be wrong: the limit, and what chance adds to so many witnesses."""
    limit = gate.max_error_among_accepted
    return limit + _DEVIATIONS * math.sqrt(limit * (1 - limit) / max(1, figures.accepted_witnesses))


def _found(figure: float | None) -> str:
    return "not measured" if figure is None else f"found {figure:.4f}"
