"""Runs a Python program as the unit's MemoryDenyWriteExecute does: no memory that is both written and run.

The same seccomp filter that systemd sets (systemd.exec(5)), so any kernel that has seccomp will do. Exits 77 where this
one has not.
"""

import ctypes
import mmap
import os
import platform
import struct
import sys

NO_SECCOMP = 77
CALLS = {"x86_64": (9, 10, 329), "aarch64": (222, 226, 288)}  # mmap, mprotect, pkey_mprotect
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_LOAD, _AND, _EQUALS, _HAS, _RETURN = 0x20, 0x54, 0x15, 0x45, 0x06  # linux/bpf_common.h
_NUMBER, _PROTECTION = 0, 32  # in struct seccomp_data; the low half of the third argument
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050001  # with EPERM
_FILTER_MODE = 2


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def forbid() -> bool:
    """Refuse this process and what it becomes such memory; False where the kernel cannot."""
    map_, protect, protect_with_key = CALLS[platform.machine()]
    written_and_run = mmap.PROT_WRITE | mmap.PROT_EXEC
    instructions = (  # code, steps if true, steps if false, operand
        (_LOAD, 0, 0, _NUMBER),
        (_EQUALS, 3, 0, map_),
        (_EQUALS, 5, 0, protect),
        (_EQUALS, 4, 0, protect_with_key),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _PROTECTION),
        (_AND, 0, 0, written_and_run),
        (_EQUALS, 2, 3, written_and_run),
        (_LOAD, 0, 0, _PROTECTION),
        (_HAS, 0, 1, mmap.PROT_EXEC),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    )
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
    program = _Program(len(instructions), code)
    c = ctypes.CDLL(None)
    return not (
        c.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or c.prctl(_PR_SET_SECCOMP, _FILTER_MODE, ctypes.byref(program))
    )


def is_forbidden() -> bool:
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except PermissionError:
        return True
    return False


if __name__ == "__main__":
    if not forbid():
        sys.exit(NO_SECCOMP)
    assert is_forbidden(), "the filter lets such memory through"
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])  # noqa: S606 - what the tests ask for
