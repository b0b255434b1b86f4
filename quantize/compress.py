"""A 16-bit GGUF to fewer bits, through llama.cpp, in several ways; and which of them is best under the limits."""

from collections.abc import Sequence
from pathlib import Path

import gguf
from msgspec import Struct

from models.llama import quantize_file
from quantize.recipe import Candidate, Compression
from quantize.steps import told_by_the_system

_WHOLE = ("F32", "F16")  # norms, biases and tables of positions stay as they are
_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"


class Compressed(Struct, frozen=True):
    """What became of a candidate."""

    path: str
    megabytes: float
    fallbacks: dict[str, list[str]]  # the type that llama.cpp took in place of the wanted one, and the tensors


class Trial(Struct, frozen=True):
    """A candidate measured on events that nothing was learnt from, nor will be reported on."""

    candidate: Candidate
    megabytes: float
    label_flips: float  # against the 16-bit model
    calibration_error: float  # after a calibration that was fitted on other events
    events_per_s: float  # one thread
    fallbacks: dict[str, list[str]] = {}

    def misses(self, limits: Compression, max_label_flips: float, max_calibration_error: float) -> list[str]:
        """Return which limits it misses, in words."""
        bounds = (
            (self.megabytes > limits.max_megabytes, f"{self.megabytes:.1f} MB"),
            (self.events_per_s < limits.min_events_per_s, f"{self.events_per_s:.0f} events/s"),
            (self.label_flips > max_label_flips, f"{self.label_flips:.2%} of the labels flip"),
            (self.calibration_error > max_calibration_error, f"calibration error {self.calibration_error:.3f}"),
        )
        return [said for missed, said in bounds if missed]


def compress(source: Path, target: Path, candidate: Candidate) -> Compressed:
    """Write `source` in fewer bits; `target` appears whole or not at all.

    Raises:
        InputError: llama.cpp refuses it.
        OSError: there is no room for it.
    """
    unfinished = target.with_name(target.name + ".unfinished")
    try:
        with told_by_the_system(target.parent):
            quantize_file(source, unfinished, candidate.type, embedding=candidate.embedding, output=candidate.output)
        fallbacks = _fallbacks(unfinished, candidate)
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return Compressed(str(target), target.stat().st_size / 1e6, fallbacks)


def choose(trials: Sequence[Trial], limits: Compression, max_label_flips: float, max_calibration_error: float) -> Trial:
    """Return the smallest that misses no limit; else, of those small and fast enough, the one that flips least.

    Where none is small and fast enough, the one that flips least of all: the gate says what is wrong with it.
    """
    sound = [one for one in trials if not one.misses(limits, max_label_flips, max_calibration_error)]
    if sound:
        return min(sound, key=lambda one: (one.megabytes, -one.events_per_s))
    fitting = [one for one in trials if not one.misses(limits, 1.0, 1.0)]
    return min(fitting or trials, key=lambda one: (one.label_flips, one.megabytes))


def _fallbacks(path: Path, candidate: Candidate) -> dict[str, list[str]]:
    """Return the tensors that have another type than was asked for.

    K types mix several by design: `Q4_K_M` gives some tensors Q6_K.
    """
    found: dict[str, list[str]] = {}
    for tensor in gguf.GGUFReader(path).tensors:
        kind = tensor.tensor_type.name
        own = {_EMBEDDING: candidate.embedding, _OUTPUT: candidate.output}.get(tensor.name)
        if kind in _WHOLE or kind == (own or candidate.type) or (not own and _belongs(kind, candidate.type)):
            continue
        found.setdefault(kind, []).append(str(tensor.name))
    return found


def _belongs(kind: str, wanted: str) -> bool:
    return wanted.startswith(f"{kind}_") or ("_K" in wanted and kind in ("Q4_K", "Q5_K", "Q6_K"))
