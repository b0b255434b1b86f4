"""Installs the locked packages into the virtual environment it runs in; compiles llama.cpp once per processor.

`install.py STAMP [LOCK…]`: `./just` runs it when the locks, the checkout's place or the processor have changed, and
names the locks that are wanted beside those of every checkout. Every step can be interrupted and run again. What it
says goes to standard error, so that `./just classify` keeps its standard output clean.

llama.cpp is compiled here because no binary of it fits: it is built for this very processor, and without AMX, with
which GCC 12 makes code that crashes on 4-bit models. No installer's cache of built packages is trusted with it, since
their caches know neither the flags nor the processor; the wheel is kept under `build/`, named after both.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = tuple(ROOT / "requirements" / name for name in ("build.txt", "edge.txt", "central.txt", "dev.txt"))
NATIVE = "llama-cpp-python"
LEFT_OUT = ROOT / "requirements" / "llama-cpp.cmake"
WITHOUT_AMX = ("-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16")
BUILD_WHEEL = """
import sys
from scikit_build_core.build import build_wheel

build_wheel(sys.argv[1], {"build-dir": sys.argv[2]})
"""


class SetupError(Exception):
    """What stands in the way, and what to do about it."""


def main() -> int:
    """Bring the environment to what the locks say, then leave the stamp that says so."""
    environment = Path(sys.prefix)
    with (environment / "headwater-setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second `./just` waits here, and then finds most of the work done
        try:
            install(environment, (*LOCKS, *(ROOT / "requirements" / name for name in sys.argv[2:])))
        except SetupError as error:
            say(f"just: {error}")
            return 1
        except KeyboardInterrupt:
            say("just: interrupted; the next run goes on from here")
            return 130
        (environment / "headwater-stamp").write_text(sys.argv[1] + "\n", encoding="utf-8")
    return 0


def install(environment: Path, locks: tuple[Path, ...]) -> None:
    """Packages first, since compiling needs some of them; then llama.cpp; then this project itself."""
    requirements = merge(locks)
    native = requirements.pop(NATIVE)
    say(f"[2/4] installing {len(requirements)} locked packages")
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as merged:
        merged.write("\n".join(requirements.values()) + "\n")
        merged.flush()
        options = ("--no-deps", "--only-binary", ":all:", "--require-hashes")
        pip("installing packages", "install", *options, "-r", merged.name)
    wheel = compiled(native)
    installed = environment / "headwater-llama-cpp"
    if not installed.exists() or installed.read_text(encoding="utf-8") != wheel.parent.name:
        installed.unlink(missing_ok=True)
        pip("installing llama.cpp", "install", "--no-index", "--no-deps", "--force-reinstall", str(wheel))
        installed.write_text(wheel.parent.name, encoding="utf-8")
    say("[4/4] installing headwater itself, as it stands in this checkout")
    pip("installing headwater", "install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def merge(locks: tuple[Path, ...]) -> dict[str, str]:
    """Return the locked requirements by name and marker; the locks are made together and never disagree."""
    merged: dict[str, str] = {}
    for lock in locks:
        for block in re.split(r"^(?=[A-Za-z0-9])", lock.read_text(encoding="utf-8"), flags=re.MULTILINE):
            if match := re.match(r"([A-Za-z0-9._-]+)==\S+( ;[^\\\n]*)?", block):
                requirement = [line for line in block.splitlines() if not line.lstrip().startswith("#")]
                merged[match[1] + (match[2] or "").rstrip()] = "\n".join(requirement)
    return merged


def compiled(requirement: str) -> Path:
    """Return the wheel of llama-cpp-python for this processor and compiler, compiled now if it is not there."""
    version = re.split(r"==|\s", requirement)[1]
    place = ROOT / "build" / f"llama-cpp-{version}"
    compiler = find_compiler()
    arguments = cmake_arguments(compiler)
    key = build_key(requirement, arguments, compiler)
    wheels = place / key
    if not wheels.exists():
        source = unpacked(requirement, place)
        shutil.rmtree(source / "llama_cpp" / "lib", ignore_errors=True)  # what another build left
        unfinished = place / f"unfinished-{key}"
        shutil.rmtree(unfinished, ignore_errors=True)
        compile_wheel(source, place / f"objects-{key}", unfinished, arguments)
        unfinished.replace(wheels)  # only a whole wheel ever stands there
        shutil.rmtree(place / f"objects-{key}")
    [wheel] = wheels.glob("*.whl")
    return wheel


def find_compiler() -> str:
    """Return the command of a C++ compiler that works.

    Raises:
        SetupError: there is none.
    """
    for command in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        if command and accepts(command, ()):
            return command
    raise SetupError("no C++ compiler that works, to compile llama.cpp; on Debian: apt-get install build-essential")


def accepts(compiler: str, flags: tuple[str, ...]) -> bool:
    """Say whether the compiler makes an object with these flags."""
    command = [*compiler.split(), *flags, "-x", "c++", "-c", "-o", os.devnull, "-"]
    try:
        done = subprocess.run(command, input=b"#include <cmath>\nint main() {}\n", capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def cmake_arguments(compiler: str) -> str:
    """Return what CMake is told, as the one string that the package's build reads from `CMAKE_ARGS`."""
    arguments = [
        "-DGGML_NATIVE=ON",
        "-DLLAVA_BUILD=OFF",  # pictures and sound
        f"'-DCMAKE_PROJECT_llama.cpp_INCLUDE={LEFT_OUT}'",
    ]
    if accepts(compiler, WITHOUT_AMX):  # only compilers for x86-64 know these flags, and only there they are needed
        flags = " ".join(WITHOUT_AMX)
        arguments += [f"'-DCMAKE_C_FLAGS={flags}'", f"'-DCMAKE_CXX_FLAGS={flags}'"]
    return " ".join([*arguments, os.environ.get("CMAKE_ARGS", "")]).strip()


def build_key(requirement: str, arguments: str, compiler: str) -> str:
    """Name a build by everything that decides which instructions are in it."""
    version = subprocess.run([*compiler.split(), "--version"], capture_output=True, text=True, check=False).stdout
    processor = Path("/proc/cpuinfo")
    lines = processor.read_text(encoding="utf-8").splitlines() if processor.exists() else []
    features = sorted({line for line in lines if re.match(r"(flags|Features|model name|CPU part)\b", line)})
    left_out = LEFT_OUT.read_text(encoding="utf-8")
    settings = arguments.replace(str(ROOT), "")
    parts = (requirement, settings, left_out, version, platform.machine(), *platform.libc_ver(), *features)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def unpacked(requirement: str, place: Path) -> Path:
    """Return the unpacked source distribution, whose digest is the lock's.

    It stays: tests and benches use its vocabularies, templates and tools.
    """
    source = place / "source"
    if source.exists():
        return source
    say("[3/4] fetching the source of llama.cpp")
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        locked = Path(scratch) / "locked.txt"
        locked.write_text(requirement + "\n", encoding="utf-8")
        options = ("--no-deps", "--no-cache-dir", "--no-build-isolation", "--no-binary", NATIVE, "--require-hashes")
        pip("fetching llama.cpp", "download", *options, "-r", str(locked), "-d", scratch)
        [archive] = Path(scratch).glob("*.tar.gz")
        shutil.unpack_archive(archive, scratch)
        Path(scratch, archive.name.removesuffix(".tar.gz")).replace(source)
    return source


def compile_wheel(source: Path, objects: Path, wheels: Path, arguments: str) -> None:
    """Run the package's own build, saying how far it is; objects of an interrupted run are used again.

    Raises:
        SetupError: it failed; the message ends with what it said.
    """
    cores = len(os.sched_getaffinity(0))
    minutes = max(1, round(6 / cores))
    say(f"[3/4] compiling llama.cpp for this processor: once, about {minutes} minutes on {cores} cores")
    environment = {"CMAKE_BUILD_PARALLEL_LEVEL": str(cores), **os.environ}
    environment |= {"CMAKE_ARGS": arguments, "CMAKE_GENERATOR": "Ninja"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    started = time.monotonic()
    said = 0.0
    log = objects.with_suffix(".log")
    tail: deque[str] = deque(maxlen=15)
    with (
        log.open("w", encoding="utf-8") as whole,
        subprocess.Popen(
            [sys.executable, "-c", BUILD_WHEEL, str(wheels), str(objects)],
            cwd=source,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as build,
    ):
        for line in build.stdout or ():
            whole.write(line)
            tail.append(line)
            elapsed = time.monotonic() - started
            step = re.match(r"\[(\d+)/(\d+)\]", line)
            if step and (sys.stderr.isatty() or elapsed - said >= 15):
                said = elapsed
                progress(f"[3/4] compiling llama.cpp: {step[1]} of {step[2]} steps, {elapsed:.0f} s")
    progress("")
    if build.returncode:
        raise SetupError(
            f"llama.cpp did not compile; {log} has all that its build said, and this is the end:\n{''.join(tail)}"
        )
    say(f"[3/4] compiled llama.cpp in {time.monotonic() - started:.0f} s")


def pip(doing: str, verb: str, *arguments: str) -> None:
    """Run pip, whose output nobody needs to see unless it fails.

    Raises:
        SetupError: it failed; the message ends with what it said.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", verb, "--quiet", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SetupError(f"{doing} failed; run it again when this is resolved:\n{done.stdout[-3000:]}")


def progress(text: str) -> None:
    """Say how far a step is: on a terminal in one line, elsewhere line by line."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
    elif text:
        say(text)


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
