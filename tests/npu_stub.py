"""Libraries that torch_npu loads where there is no CANN: `npu_stub.c`, and for all else that it
needs functions that refuse, so that nothing that would compute gives garbage.
"""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("npu_stub.c")
# What torch_npu is linked against; the first holds every function.
LIBRARIES = ("ascendcl", "hccl", "acl_op_compiler", "ge_runner", "graph", "acl_tdt_channel")
LOADED = ("_C.*.so", "lib/libtorch_npu.so", "lib/libtensorpipe.so", "lib/libnpu_profiler.so")
# Operators are described by these, and then refused; a log has no readers.
DESCRIBING = re.compile(r"acl(?:\w+Tensor\w+|\w+DataBuffer|op\w+Attr\w*|AppLog)")
RUNTIME_NAME = re.compile(r"(?:acl|rt[A-Z]|Msprof)\w+")
REFUSAL = """
#include <stdio.h>
static long refuse(const char *name) {
    fprintf(stderr, "npu stub refuses %s\\n", name);
    return 500000;
}
"""


def build_stub(package: Path, folder: Path) -> None:
    """
    Args:
        package: torch_npu's, as its wheel has it.
        folder: for the libraries, which goes into LD_LIBRARY_PATH.
    """
    host_memory = folder / "npu_stub.o"
    run("gcc", "-c", "-fPIC", f"-I{package / 'include'}", SOURCE, "-o", host_memory)
    loaded = [file for pattern in LOADED for file in package.glob(pattern)]
    missing = symbols("--undefined-only", loaded) - symbols("--defined-only", [host_memory])
    refusing = folder / "refusing.c"
    refusing.write_text("\n".join([REFUSAL, *map(function, sorted(missing))]))
    whole, *others = (folder / f"lib{name}.so" for name in LIBRARIES)
    run("gcc", "-shared", "-fPIC", f"-Wl,-soname,{whole.name}", host_memory, refusing, "-o", whole)
    # Who looks for a function in a library finds it in those that this one needs.
    for library in others:
        run("gcc", "-shared", "-Wl,--no-as-needed", whole, "-o", library)


def function(name: str) -> str:
    answer = "0" if DESCRIBING.fullmatch(name) else f'refuse("{name}")'
    return f"long {name}(void) {{ return {answer}; }}"


def symbols(which: str, files: Sequence[Path]) -> set[str]:
    """Names of the runtime's functions that the files need or have."""
    flags = ("-D",) if which == "--undefined-only" else ()
    names = (line.split()[-1] for line in run("nm", *flags, which, *files).splitlines() if line)
    return {name for name in names if RUNTIME_NAME.fullmatch(name)}


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
