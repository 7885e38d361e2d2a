"""kernels.cu goes through NVIDIA's own compiler, to machine code of three generations, without a GPU.

pip install "nvidia-cuda-nvrtc-cu12==12.9.*"        CuPy itself asks for a driver before it compiles
"""

import ctypes
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from minispike.kernels import cuda
from minispike.neuron import Neuron
from minispike.surrogate import ATan, FastSigmoid, Rectangle, Sigmoid, Triangle

pytestmark = pytest.mark.oracle

SETTINGS = [
    (4, False, True, Neuron()),
    (4, True, True, Neuron(surrogate=ATan(), v_reset=-0.2)),
    (4, False, False, Neuron(surrogate=Triangle(), detach_reset=False)),
    (16, False, True, Neuron(surrogate=Rectangle(), v_reset=None)),
    (32, False, True, Neuron(surrogate=FastSigmoid(), v_reset=None, detach_reset=False)),
    (32, False, True, Neuron(surrogate=Sigmoid(), detach_reset=False)),
]


def nvrtc():
    found = find_spec("nvidia.cuda_nvrtc")
    if found is None:
        pytest.skip("nvidia-cuda-nvrtc-cu12 is not installed")
    (library,) = Path(found.submodule_search_locations[0]).glob("lib/libnvrtc.so.1*")
    return ctypes.CDLL(str(library))


class Options:
    """Stands in for CuPy: RawModule hands over what it is given."""

    @staticmethod
    def RawModule(*, code, options):
        return code, options


def compile_for(arch, code, options):
    """Compile; return whether it worked, and the compiler's log."""
    lib, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    made = lib.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None)
    assert made == 0
    cupys = f"-arch={arch}", "--ptxas-options=-v", "-ftz=true"  # CuPy appends the last one
    words = [each.encode() for each in (*options, *cupys)]
    failed = lib.nvrtcCompileProgram(program, len(words), (ctypes.c_char_p * len(words))(*words))
    lib.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    lib.nvrtcGetProgramLog(program, log)
    return not failed, log.value.decode()


@pytest.mark.parametrize("arch", ["sm_70", "sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_it_compiles_and_nothing_spills(arch, dtype, settings):
    good, log = compile_for(arch, *cuda.module.__wrapped__(Options, dtype, *settings))
    assert good, log
    spilled = re.findall(r"Compiling entry function '(\w+)'.*\n.*\n.*?(\d+) bytes spill stores, (\d+)", log)
    registers = dict(re.findall(r"Compiling entry function '(\w+)'(?s:.*?)Used (\d+) registers", log))
    assert {"normalise_and_fire", "back_through_time", "moments", "max_pool", "adamw"} <= set(registers)
    assert len(spilled) == len(registers) == 13
    assert not [each for each in spilled if each[1:] != ("0", "0")]
    assert set(re.findall(r"(\d+) bytes stack frame", log)) == {"0"}  # h[T] lies in registers
    threads = {"add_up": 1024, "merge_moments": 1024}  # of a block; it has 65,536 registers
    assert all(int(n) * threads.get(name, 256) <= 2**16 for name, n in registers.items())
    print(arch, dtype, settings[0], registers)


def test_the_compiler_does_find_mistakes():
    code, options = cuda.module.__wrapped__(Options, "float32", *SETTINGS[0])
    good, log = compile_for("sm_90", code.replace("real v = rest", "real v = rset"), options)
    assert not good and "rset" in log
