"""What every test file shares."""

import numpy as np
import pytest

from minispike import parallel
from minispike.kernels.compiled import tell_what_is_missing

from . import stand_in  # noqa: F401  registers itself as a device


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


@pytest.fixture(params=["stand_in", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """A device that is not the host: the stand-in; with pytest -m gpu a GPU."""
    return request.param


def pytest_collection_modifyitems(config, items):
    """Leave out the tests for a GPU wherever they are not asked for, as in pytest -m slow."""
    if "gpu" not in config.option.markexpr:
        chosen = [item for item in items if not item.get_closest_marker("gpu")]
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("gpu")])
        items[:] = chosen


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With pytest -m gpu nothing may be skipped: a test that did not run proves nothing."""
    report = yield
    if report.skipped and item.get_closest_marker("gpu"):
        report.outcome, report.longrepr = "failed", f"skipped, which is a failure on a GPU: {report.longrepr}"
    return report
