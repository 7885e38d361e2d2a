"""Threads and memory: the same result whatever the threads."""

import os
import signal
import time
from threading import Event, Thread, get_ident

import numpy as np
import pytest

from minispike import LIF, create_model, lif, ops, parallel

from .blocks.test_blocks import lively


@pytest.fixture
def threads():
    """Let a test set the number of threads."""
    before = parallel.get_threads()
    yield parallel.set_threads
    parallel.set_threads(before)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_index_is_visited_once_whatever_the_threads(threads, n):
    threads(n)
    assert parallel.get_threads() == n
    for size in (0, 1, 7, 1000, 12345):
        counts = np.zeros(size, int)

        def work(start, stop, counts=counts):
            counts[start:stop] += 1
            return stop - start

        totals = parallel.spans(work, size, least=100)
        assert len(totals) == 1 or min(totals) >= 100
        assert (counts == 1).all() and sum(totals) == size and len(totals) <= n


def test_an_error_in_a_thread_comes_out(threads):
    threads(2)

    def work(start, stop):
        if start:
            raise ValueError("second span")

    with pytest.raises(ValueError, match="second span"):
        parallel.spans(work, 1000)


def test_a_run_repeats_bit_for_bit_for_a_given_number_of_threads(threads, rng):
    x, labels = rng.standard_normal((64, 8, 8, 1)).astype("float32"), np.arange(64) % 10

    def gradients():
        model = lively(create_model("spikformer_1_64_digits"), np.random.default_rng(1))
        ops.softmax_cross_entropy(model(x), labels).backward()
        return [p.grad for p in model.parameters()]

    for n in (1, 2):
        threads(n)
        assert all(np.array_equal(a, b) for a, b in zip(gradients(), gradients(), strict=True))


def test_at_least_one_thread(threads):
    with pytest.raises(ValueError, match="n >= 1, got 0"):
        threads(0)


def test_freed_memory_can_be_kept_anywhere(monkeypatch):
    parallel.keep_freed_memory()

    for error in (OSError, TypeError):  # TypeError: on Windows

        def nothing(*_, error=error):
            raise error

        monkeypatch.setattr(parallel.ctypes, "CDLL", nothing)
        parallel.keep_freed_memory()  # no C library of that kind: nothing happens


def test_two_callers_do_not_take_each_others_threads(threads):
    """The second goes its way alone, in the same pieces; BLAS has its threads back when both are done."""
    threads(2)
    waiting, go, seen, n = Event(), Event(), [], 64

    def slow(*span):
        waiting.set()
        assert go.wait(10)
        return span

    def blas():
        return {lib["num_threads"] for lib in parallel._blas().info() if lib["user_api"] == "blas"}

    first = Thread(target=lambda: seen.append(parallel.spans(slow, n)))
    first.start()
    assert waiting.wait(10)
    inner = parallel.spans(lambda *span: (get_ident(), span), n)
    assert {who for who, _ in inner} == {get_ident()} and len(inner) == 2
    go.set()
    first.join()
    assert seen == [[span for _, span in inner]] and blas() == {2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of later Pythons
def test_a_forked_process_has_threads_of_its_own(threads):
    threads(2)
    here = parallel.spans(lambda *span: span, 64)  # now there is a pool
    with parallel._at_work:  # and somebody works with it
        child = os.fork()
        if not child:
            os._exit(parallel.spans(lambda *span: span, 64) != here or parallel._at_work.locked())
    for _ in range(1000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.01)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert done and status == 0


def test_a_neuron_layer_keeps_its_settings():
    layer = LIF(tau=3.0, smooth=True)
    x = np.linspace(0, 4, 20).reshape(4, 5)
    assert np.array_equal(layer(x).data, lif(x, tau=3.0, smooth=True).data)


# ---------------------------------------------------------------- without threads


@pytest.fixture
def no_threads(monkeypatch):
    """Let no thread start, as in a browser's Python. The pool of threads is a new one inside and after."""

    def start(self):
        raise RuntimeError("can't start new thread")

    parallel._pool.cache_clear()
    monkeypatch.setattr(Thread, "start", start)
    yield
    parallel._pool.cache_clear()


def some_gradients():
    x = np.random.default_rng(0).standard_normal((64, 8, 8, 1)).astype("float32")
    found = []
    for name in ("spikformer_1_64_digits", "attention_free_fft2d_1_64_digits"):
        model = lively(create_model(name), np.random.default_rng(1))
        ops.softmax_cross_entropy(model(x), np.arange(64) % 10).backward()
        found += [p.grad for p in model.parameters()]
    return found


def test_without_threads_the_result_is_the_same_after_one_warning(threads, monkeypatch, request):
    monkeypatch.setattr("minispike.kernels.unfolded.CHUNK_BYTES", 2**16)  # with or without compiled loops
    threads(3)
    expected = some_gradients()
    request.getfixturevalue("no_threads")
    with pytest.warns(RuntimeWarning, match="without threads: can't start new thread") as warned:
        found = some_gradients()
    assert len(warned) == 1 and not parallel.threads_start()
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_if_only_some_threads_can_be_started_none_is_left_waiting(threads, monkeypatch):
    start, started = Thread.start, []

    def only_one(self):
        if started:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    parallel._pool.cache_clear()
    monkeypatch.setattr(Thread, "start", only_one)
    threads(4)
    counts = np.zeros(1000, int)
    with pytest.warns(RuntimeWarning, match="without threads"):
        parallel.spans(lambda a, b: np.add(counts[a:b], 1, counts[a:b]), 1000)
    assert (counts == 1).all() and len(started) == 1
    started[0].join(5)
    assert not started[0].is_alive()
    parallel._pool.cache_clear()
