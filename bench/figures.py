"""The figures of the benches as the README's tables: `python -m bench.figures` writes them there."""

import sys
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.row import Row

ROOT = Path(__file__).parent.parent
SPEED = {
    "label_vs_grammar": "a label, against the high-level API writing label and confidence under a JSON grammar",
    "label_vs_one_token": "a label, against the same API writing one token, without probabilities",
    "label_vs_server": "a label, against `llama-server` with its prompt cache and one token's probabilities",
    "decode_efficiency": "tokens per second, against llama.cpp's own speed on bare 64-token prompts",
    "fields_vs_grammar": "label and fields from `soc-triage-small`, against a grammar over the whole vocabulary",
    "label_vs_grammar_qwen": "the first, for a model of Qwen2.5-0.5B's shape",
    "fields_vs_grammar_qwen": "label and fields, for a model of Qwen2.5-0.5B's shape",
    "events_per_s": "saturation on two cores, default release, real lines; median of three rounds",
    "latency_p95_ms": "from the socket to the sink at 70 % of that, 95 of 100 events",
    "latency_p99_ms": "the same, 99 of 100",
    "latency_p95_ms_at_50": "from the socket to the sink at 50 events/s, 95 of 100 events",
    "latency_p99_ms_at_50": "the same, 99 of 100",
    "pipeline_events_per_s": "spool, flow and JSON lines on one core by default, with a table in place of the model",
    "udp_lost": "datagrams lost of syslog over UDP at 20,000/s for 10 s",
    "rss_mb": "resident memory beside the model file",
}
QUALITY = {
    "triage_macro_f1": "`soc-triage` on strangers' events, macro-F1 of three labels",
    "triage_macro_f1_gain": "the same, more than n-grams that learnt from the same corpus",
    "triage_binary_f1": "the same, F1 of harmful against `benign`",
    "triage_binary_macro_f1": "the same, mean F1 of harmful and `benign`",
    "triage_ece_strangers": "calibration error there",
    "source_f1": "`source` there, where it did not say `benign` and one is annotated",
    "technique_accuracy": "`technique` there, likewise",
    "triage_ece": "calibration error on products that it never saw",
    "injection_flips": "events there that a text which a stranger wrote into them made milder",
    "quiet_false_alarms": "plain operation that was called anything else",
    "foreign_auroc": "label mass, events against texts of other kinds",
    "flips_vs_16bit": "labels that differ from the 16-bit model's",
    "intents_accuracy": "`support-routing` on held-out questions",
    "label_events_per_s": "different real lines on one thread, the slower of the two",
    "quantize_minutes": "the whole recipe of `soc-triage`",
}
CACHE = {
    "events_per_s_cached": "spool, flow, model and JSON lines on one core, default release, audits on",
    "hit_rate": "of that stream, answered from the cache",
    "hit_rate_first_pass": "of each source's lines as they came, with a cache that begins empty",
    "cached_vs_model": "that stream, against the same gateway that remembers nothing from one window to the next",
    "cache_disagreement": "answers from the cache whose label is not the model's own",
    "missed_attacks": "attacks that the model finds, and that get a milder label when the cache knows look-alikes",
    "audit_delay": "what an entry still answers when its meaning has changed, at 1 % audits",
    "key_us": "a line's key, real lines",
    "cache_mb": "memory of a full cache",
}
CENTRE = {
    "kafka_events_per_s": "Kafka, triage with a table for a model, Kafka: one process, a broker on the same machine",
    "kafka_scaling": "the same, two processes on four partitions, events per second of processor time against one",
    "server_concurrency": "a tiny model behind vLLM's OpenAI-compatible server, against one request at a time",
    "parse_failures": "answers that could not be used, all engines",
    "parity_max_difference": "largest difference of a label's probability, llama.cpp against vLLM, the same weights",
    "cascade_gain": "how much more often the centre's release is right than the gateway's, on new vendors",
    "cascade_accuracy_kept": "of the large model's accuracy, where the gateway's keeps what it is sure of",
    "cascade_escalated": "share that the gateway's sends up for that",
    "cascade_injection_flips": "injected texts that make a verdict of the centre's release milder",
    "warehouse_verdicts_per_s": "verdicts into the warehouse",
    "warehouse_query_ms": "a day's verdicts by label, of 10 million",
    "gpu_labels_per_s": "labels on a GPU, a model of 8 billion weights",
    "gpu_share_of_limit": "the same, of what its arithmetic allows",
}
# In words; each module holds its own rows to them. A figure without one is only reported.
TARGETS = {
    "label_vs_grammar": "ratio ≥ 6",
    "label_vs_one_token": "ratio ≥ 1.3",
    "label_vs_server": "ratio ≥ 1.5",
    "decode_efficiency": "ratio ≥ 0.7",
    "fields_vs_grammar": "ratio ≥ 3",
    "latency_p95_ms": "< 50",
    "latency_p99_ms": "< 200",
    "pipeline_events_per_s": "≥ 100,000",
    "udp_lost": "0",
    "rss_mb": "≤ 150",
    "triage_macro_f1_gain": "≥ 0.05",
    "triage_macro_f1": "≥ 0.45",
    "triage_binary_f1": "≥ 0.65",
    "triage_ece": "≤ 0.03",
    "flips_vs_16bit": "≤ 0.01",
    "intents_accuracy": "≥ 0.93",
    "injection_flips": "≤ 0.05",
    "quiet_false_alarms": "≤ 0.05",
    "foreign_auroc": "≥ 0.95",
    "source_f1": "≥ 0.95",
    "quantize_minutes": "≤ 90",
    "kafka_events_per_s": "≥ 40,000",
    "kafka_scaling": "ratio ≥ 0.9",
    "server_concurrency": "ratio ≥ 3",
    "parse_failures": "0",
    "parity_max_difference": "≤ 0.02",
    "cascade_gain": "its interval above 0",
    "cascade_accuracy_kept": "≥ 0.99",
    "cascade_escalated": "≤ 0.15",
    "gpu_share_of_limit": "≥ 0.6",
    "label_events_per_s": "≥ 60",
    "events_per_s_cached": "≥ 8,000",
    "hit_rate": "≥ 0.95",
    "cached_vs_model": "ratio ≥ 30",
    "cache_disagreement": "≤ 0.001",
    "missed_attacks": "0",
    "audit_delay": "≤ 150",
    "key_us": "≤ 8",
    "cache_mb": "≤ 60",
}


class Place(Struct, frozen=True):
    """A table of the README: what it shows in words, from which results, by which command."""

    name: str
    results: Path
    words: dict[str, str]
    command: str

    @property
    def before(self) -> str:
        return f"<!-- {self.name}, by `./just figures` -->\n"

    @property
    def after(self) -> str:
        return f"<!-- end of {self.name} -->\n"


PLACES = (
    Place("the figures", ROOT / "build" / "bench.json", SPEED, "./just bench"),
    Place("the quality", ROOT / "build" / "bench-quality.json", QUALITY, "./just bench-quality"),
    Place("the verdict cache", ROOT / "build" / "bench-cache.json", CACHE, "./just bench-cache"),
    Place("the centre", ROOT / "build" / "bench-central.json", CENTRE, "./just bench-central"),
)


def table(rows: list[Row], place: Place) -> str:
    """Return the figures as a Markdown table, in the order of the place's words, with the command of each."""
    by_name = {row.name: row for row in rows}
    lines = ["| what | figure | against | ratio | target | command |", "|---|---|---|---|---|---|"]
    for name, what in place.words.items():
        if (row := by_name.get(name)) is not None:
            ratio = "" if row.ratio is None else f"{row.ratio:.2g}"
            command = f"`{place.command} --only {name}`"
            lines.append(f"| {what} | {figure(row)} {row.unit} | {row.peer} | {ratio} | {target(row)} | {command} |")
    return "\n".join(lines) + "\n"


def target(row: Row) -> str:
    """Say what was wanted and whether it was met; a miss stands out."""
    if row.passed is None:
        return "reported"
    return f"{TARGETS[row.name]}: {'met' if row.passed else '**missed**'}"


def figure(row: Row) -> str:
    """Return the value, and behind it in brackets its interval."""
    return shown(row.value) + (f" ({' to '.join(map(shown, row.interval))})" if row.interval else "")


def shown(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def with_figures(readme: str, rows: list[Row], place: Place) -> str:
    """Return the README with the place's table replaced."""
    head, _, rest = readme.partition(place.before)
    return f"{head}{place.before}{table(rows, place)}{place.after}{rest.partition(place.after)[2]}"


def main() -> int:
    """Write the tables into the README; what was not measured stays as it is."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    there = [place for place in PLACES if place.results.exists()]
    if not there:
        sys.stderr.write(f"nothing was measured yet; {' or '.join(f'`{place.command}`' for place in PLACES)} does\n")
        return 1
    for place in there:
        rows = msgspec.json.decode(place.results.read_bytes(), type=list[Row])
        text = with_figures(text, rows, place)
    readme.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
