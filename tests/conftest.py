"""What every test file shares."""

import numpy as np
import pytest

from minispike import parallel
from minispike.kernels.compiled import tell_what_is_missing

from . import stand_in


def pytest_configure():
    """Compute with one thread, unless a test asks for more (test_parallel.py does).

    Models are too small here for a second thread to help, and where other programs use the cores, BLAS's
    threads wait for each other: a training of four epochs took 8 s with one thread and 100 s with two.
    """
    parallel.set_threads(1)
    tell_what_is_missing()  # once, here, so that no test finds it among the messages it reads


@pytest.fixture
def rng():
    """A random generator with a fixed seed."""
    return np.random.default_rng(0)


def _cuda_or_skip():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed", exc_type=ImportError)
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no GPU: {error}")
    return "cuda"


@pytest.fixture(params=["stand_in", "cuda"])
def device(request):
    """A device that is not the host: the stand-in always, a GPU where there is one."""
    return stand_in.DEVICE.name if request.param == "stand_in" else _cuda_or_skip()
