"""What an event costs the shipped decoder by how many come at once (docs/adr/0015): `python -m bench.batches`."""

import time
from contextlib import closing

from bench.gateway import CORES, real_lines
from bench.label import DECODER
from models.header import split_all
from models.opening import open_classifier

SIZES = (1, 4, 8, 16, 32, 64, 256)
EVENTS = 1536
ROUNDS = 3


def main() -> None:
    """Print milliseconds an event, label and fields, on two threads: the fastest of a few rounds."""
    lines = [line.decode("utf-8", "replace") for line in real_lines()[:EVENTS]]
    texts = [header.body for header in split_all(lines, time.time_ns() // 1_000_000)]
    fastest = dict.fromkeys(SIZES, float("inf"))
    for _ in range(ROUNDS):
        for size in SIZES:
            # One of its own for each, so that none finds fields guessed that another wrote.
            with closing(open_classifier(DECODER, threads=CORES)) as classifier:
                begun = time.perf_counter()
                for start in range(0, len(texts), size):
                    classifier.classify(texts[start : start + size])
                fastest[size] = min(fastest[size], time.perf_counter() - begun)
    for size, seconds in fastest.items():
        print(f"{size:4} at once: {1e3 * seconds / len(texts):.2f} ms an event")


if __name__ == "__main__":
    main()
