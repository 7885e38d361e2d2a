"""What every test file shares."""

import numpy as np
import pytest

from . import stand_in


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
