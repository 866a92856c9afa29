"""Another processor than this one, emulated: does a file give the same answers there?"""

import platform
import shutil
from typing import Final

from autocompress.errors import InputError, unknown_name

# What people call it -> what QEMU does. Without VNNI, 8-bit kernels add pairs in saturating int16.
CPUS: Final = {"avx2": "Haswell", "sse4": "Nehalem"}
_PROGRAMS: Final = ("qemu-x86_64", "qemu-x86_64-static")


def emulator_of(cpu: str) -> tuple[str, ...]:
    """The command that runs a program as on another x86 processor; about 30 times slower.

    Args:
        cpu: A key of `CPUS`.

    Raises:
        InputError: If there is no such name, this is no x86 machine, or QEMU is not installed.
    """
    if cpu not in CPUS:
        raise unknown_name("cpu", cpu, CPUS)
    if platform.machine() not in ("x86_64", "AMD64") or platform.system() != "Linux":
        raise InputError(
            f"`cpu={cpu}` must be asked for on Linux on x86, but this is {platform.system()} on "
            f"{platform.machine()}."
        )
    program = next((found for name in _PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        raise InputError(
            f"`cpu={cpu}` needs QEMU's user emulation, which is not installed.",
            "Install it, on Debian and Ubuntu with: apt install qemu-user",
        )
    return (program, "-cpu", CPUS[cpu])
