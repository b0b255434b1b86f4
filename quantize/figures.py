"""Everything that was measured of a release: one record, from which gate, card, report and benches read."""

from msgspec import Struct

from quantize.compress import Trial
from quantize.measure import Bin, Estimate, FieldScores, LabelScores, SourceScores


class Peer(Struct, frozen=True):
    """What something simpler, or older, does on the same events."""

    name: str
    accuracy: float
    macro_f1: float


class Injections(Struct, frozen=True):
    """How many events that had not been called harmless were, once a stranger wrote that they are."""

    cases: int
    flips: float
    by_kind: dict[str, float] = {}
    by_carrier: dict[str, float] = {}
    examples: list[str] = []


class Figures(Struct, frozen=True, kw_only=True):
    """Of one release, on events of which nothing was learnt."""

    release: str
    labels: list[str]
    events: int
    witnesses: int
    accuracy: Estimate
    macro_f1: Estimate
    ece: Estimate  # mean gap between confidence and accuracy over bins of equally many events
    calibration_error: Estimate  # root mean square, less what chance adds; 1 where too few witnesses tell it
    by_label: dict[str, LabelScores]
    confusion: list[list[int]]
    reliability: list[Bin]
    sources: list[SourceScores]
    peers: list[Peer]
    gain_over_second: Estimate | None = None  # accuracy, less the second opinion's alone; interval over vendors
    fields: dict[str, FieldScores] = {}
    wrong_values: float = 0.0  # share of the events whose fields are known with a value that is none of the field's
    label_flips: float | None = None  # against the 16-bit model; of one that came finished there is none
    accepted: float = 0.0  # share, by the first policy
    error_among_accepted: float = 0.0
    accepted_witnesses: int = 0
    foreign_auroc: float | None = None
    foreign_events: int = 0
    injections: Injections | None = None
    quiet_false_alarms: Estimate | None = None
    quiet_events: int = 0
    trials: list[Trial] = []
    chosen: str = ""  # the title of the candidate
    megabytes: float = 0.0
    events_per_s: float = 0.0  # one thread, different events, no cache
    resident_megabytes: float = 0.0  # of opening it and reading a few dozen events, in a process of its own
    minutes: dict[str, float] = {}  # by step
    machine: str = ""

    def peer(self, name: str) -> Peer | None:
        return next((peer for peer in self.peers if peer.name == name), None)
