"""CUDA C on the host: `RawModule` compiles it by the system's C++ compiler, and runs block after block.

A kernel's threads become two loops around each phase, so nothing but shared memory lives from one phase to
the next, and a barrier is the end of a loop. The compiler is told what a GPU's is told: nothing may be
rounded once that is written as two operations.
"""

import ctypes
import hashlib
import platform
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")

SHIM = """
#include <cmath>
using std::exp; using std::fabs; using std::sqrt;
struct Place { unsigned x, y, z; };
static Place threadIdx, blockIdx, blockDim, gridDim;
#define __global__
#define __device__ inline
#define __shared__ static
#define __launch_bounds__(threads)
#define EACH_THREAD for (threadIdx.y = 0; threadIdx.y < blockDim.y; threadIdx.y++) \\
                    for (threadIdx.x = 0; threadIdx.x < blockDim.x; threadIdx.x++)
#define BARRIER
#ifdef FLUSH  // subnormal numbers are 0
#include <xmmintrin.h>
struct Flushed {
    unsigned before = _mm_getcsr();
    Flushed() { _mm_setcsr(before | 0x8040); }
    ~Flushed() { _mm_setcsr(before); }
};
#define FLUSHED Flushed flushed;
#else
#define FLUSHED
#endif
"""
LAUNCH = """
extern "C" void run_{name}(const unsigned* sizes, {parameters}) {{
    FLUSHED
    gridDim.x = sizes[0], gridDim.y = sizes[1], gridDim.z = sizes[2];
    blockDim.x = sizes[3], blockDim.y = sizes[4];
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; blockIdx.z++)
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++) {name}({names});
}}
"""


flags = ["-ffp-contract=off"]  # the compiler's, beside those that a module asks for


@contextmanager
def compiled_with(*others):
    """Compile with other flags inside the block, where they would contradict the usual ones."""
    before = flags[:]
    flags[:] = [*before, *others]
    try:
        yield
    finally:
        flags[:] = before


def fuses():
    """Whether this machine has fused multiply-adds that the compiler's -mfma gives."""
    return platform.machine() == "x86_64" and "fma" in Path("/proc/cpuinfo").read_text().split()


def flushes():
    """Whether the processor can be told to take subnormal numbers as 0, as the shim does."""
    return COMPILER and platform.machine() == "x86_64"


@cache
def library(code, defines):
    """Compile CUDA C with a function run_NAME for each kernel, which loops over its blocks."""
    found = re.findall(r"^KERNEL (?:__launch_bounds__\(.*?\) )?(\w+)\(([^)]*)\)", code, re.MULTILINE)
    launches = ""
    for name, parameters in found:
        names = ", ".join(each.split()[-1] for each in parameters.split(","))
        launches += LAUNCH.format(name=name, parameters=parameters, names=names)
    text = SHIM + code + launches
    key = hashlib.sha256(repr((text, defines)).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / "minispike-cxx"
    folder.mkdir(exist_ok=True)
    target, made = folder / f"{key}.so", folder / f"{key}.{id(text)}.so"
    if not target.exists():
        command = [COMPILER, "-x", "c++", "-", "-std=c++17", "-O2", "-shared", "-fPIC"]
        subprocess.run([*command, *defines, "-o", made], input=text, text=True, check=True)
        made.rename(target)
    return ctypes.CDLL(str(target))


class RawModule:
    """What cupy.RawModule offers, as far as kernels/cuda.py uses it."""

    def __init__(self, *, code, options):
        self.library = library(code, (*(each for each in options if each.startswith("-D")), *flags))

    def get_function(self, name):
        kernel = getattr(self.library, f"run_{name}")

        def launch(grid, block, arguments):
            sizes = (ctypes.c_uint * 5)(*(*grid, 1)[:3], *block)
            kernel(sizes, *map(as_c, arguments))

        return launch


C_TYPES = {"float32": ctypes.c_float, "float64": ctypes.c_double, "int32": ctypes.c_int}
C_TYPES |= {"int64": ctypes.c_longlong, "uint64": ctypes.c_void_p}


def as_c(x):
    """Return a NumPy array's address, or its number in C."""
    if isinstance(x, np.ndarray):
        assert x.flags.c_contiguous
        return ctypes.c_void_p(x.ctypes.data)
    return C_TYPES[x.dtype.name](x.item())
