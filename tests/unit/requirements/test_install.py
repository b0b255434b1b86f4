"""The set-up installs what the locks say, and never a native build that was made for something else."""

import importlib.util
import platform
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
REQUIREMENT = "llama-cpp-python==0.3.36 --hash=sha256:00"


@pytest.fixture(scope="module")
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "requirements" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiler(path: Path, refuses: str = "nothing", version: str = "1") -> str:
    """A compiler in all that matters here: it has a version, and flags that it does not know."""
    path.write_text(
        f'#!/bin/sh\ncase "$*" in *--version*) echo "{version}"; exit 0;; *{refuses}*) exit 1;; esac\ncat > /dev/null\n'
    )
    path.chmod(0o755)
    return str(path)


def test_the_locks_are_merged_to_one_requirement_per_name_and_python(install: ModuleType) -> None:
    merged = install.merge(install.LOCKS)

    assert install.NATIVE in merged
    assert all("--hash=sha256:" in requirement for requirement in merged.values())
    assert not any("# via" in requirement for requirement in merged.values())


def test_what_two_locks_share_is_installed_once(install: ModuleType, tmp_path: Path) -> None:
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text(
        "a==1 \\\n    --hash=sha256:aa\n    # via b\nn==1 ; python_full_version < '3.12' \\\n    --hash=sha256:bb\n"
    )
    other.write_text("a==1 \\\n    --hash=sha256:aa\nn==2 ; python_full_version >= '3.12' \\\n    --hash=sha256:cc\n")

    assert list(install.merge((one, other))) == [
        "a",
        "n ; python_full_version < '3.12'",
        "n ; python_full_version >= '3.12'",
    ]


def test_amx_is_off_where_the_compiler_knows_the_flags(install: ModuleType, tmp_path: Path) -> None:
    arguments = install.cmake_arguments(compiler(tmp_path / "c++"))

    assert "'-DCMAKE_C_FLAGS=-mno-amx-tile -mno-amx-int8 -mno-amx-bf16'" in arguments
    assert "'-DCMAKE_CXX_FLAGS=-mno-amx-tile -mno-amx-int8 -mno-amx-bf16'" in arguments


def test_a_compiler_that_does_not_know_the_flags_is_not_given_them(install: ModuleType, tmp_path: Path) -> None:
    assert "amx" not in install.cmake_arguments(compiler(tmp_path / "c++", refuses="-mno-amx"))


def test_a_build_is_named_after_its_flags_its_compiler_and_its_source(install: ModuleType, tmp_path: Path) -> None:
    old, new = compiler(tmp_path / "old", version="12"), compiler(tmp_path / "new", version="13")
    key = install.build_key(REQUIREMENT, "-DGGML_NATIVE=ON", old)

    assert key == install.build_key(REQUIREMENT, "-DGGML_NATIVE=ON", old)
    others = {
        install.build_key(REQUIREMENT, "-DGGML_NATIVE=OFF", old),
        install.build_key(REQUIREMENT, "-DGGML_NATIVE=ON", new),
        install.build_key(REQUIREMENT.replace("00", "11"), "-DGGML_NATIVE=ON", old),
    }
    assert len(others - {key}) == 3


def test_a_machine_without_a_compiler_is_told_what_to_install(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)

    with pytest.raises(install.SetupError, match="apt-get install build-essential"):
        install.find_compiler()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="AMX is a matter of x86-64")
def test_the_installed_llama_cpp_was_built_without_amx() -> None:
    from models.llama import system_features  # noqa: PLC0415 - loads native code

    assert "AMX_INT8" not in system_features()
