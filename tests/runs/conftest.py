"""Fixtures of the tests of runs."""

import pytest

from data_utils import datasets
from data_utils.images.digits import load_digits
from minispike import parallel
from minispike.kernels.events import use_products
from minispike.runs.folder import Run

from .common import end_of, session, small


def restore_threads():
    """A run sets the number of threads, and how products are computed; set both back afterwards."""
    before = parallel.get_threads()
    yield
    parallel.set_threads(before)
    use_products(None)


threads = pytest.fixture(autouse=True)(restore_threads)
# the fixture `whole` trains before the first test's own fixtures begin
threads_of_the_folder = pytest.fixture(autouse=True, scope="package")(restore_threads)


@pytest.fixture(autouse=True)
def pictures(monkeypatch, request):
    """Draw nothing, because pictures take most of a tiny run's time; test_train_and_evaluate does draw."""
    if request.function.__name__ != "test_train_and_evaluate":
        monkeypatch.setattr(Run, "draw", lambda self, history: None)


@pytest.fixture
def few(monkeypatch):
    """Make the command line, run in this process, see only 160 training digits and 40 test digits."""
    see_few_digits(monkeypatch)


def see_few_digits(monkeypatch):
    (images, labels), (test, test_labels) = load_digits()
    part = (images[:160], labels[:160]), (test[:40], test_labels[:40])
    monkeypatch.setattr(datasets, "load_digits", lambda: part)


@pytest.fixture(scope="package")
def whole(tmp_path_factory):
    """Return what an uninterrupted run leaves behind, for each objective."""
    ends = {}
    for objective in ("classify", "masked"):
        folder = tmp_path_factory.mktemp("whole") / objective
        session(folder, small(objective))
        ends[objective] = end_of(folder)
    return ends
