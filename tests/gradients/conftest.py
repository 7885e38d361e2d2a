"""One thread for the whole folder: its arrays are so small that a second thread costs time."""

import pytest

from minispike import parallel, set_threads


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    before = parallel.get_threads()
    set_threads(1)
    yield
    set_threads(before)
