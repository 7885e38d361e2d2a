"""How loops are compiled: without Numba, without a place on disk, in two threads at once, after a fork."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minispike.kernels import compiled

ROOT = Path(__file__).parents[2]
needs_numba = pytest.mark.skipif(compiled.why_not() is not None, reason="there is no Numba here")


def python(code: str, tmp_path: Path) -> subprocess.CompletedProcess:
    """Run code in a fresh process whose loops are not compiled yet."""
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=env)


def test_without_numba_nothing_changes_but_speed(tmp_path):
    code = """
import sys
sys.modules["numba"] = None
import numpy as np
from minispike import create_model, lif
from minispike.kernels import compiled, events
from minispike.ops import softmax_cross_entropy
from minispike.optim import AdamW
model = create_model("spikformer_1_64_digits")
optimizer = AdamW(model.parameters())
x = np.random.default_rng(0).standard_normal((64, 8, 8, 1)).astype("float32")
softmax_cross_entropy(model(x), np.arange(64) % 10).backward()
optimizer.step()
assert all(np.isfinite(p.data).all() for p in model.parameters())
assert events.products() == "dense" and "minispike[fast]" in compiled.why_not()
try:
    events.use_products("unknown")
except ValueError as error:
    print(error)
from minispike.runs.cli import main
main(["info", "spikformer_1_64_digits", "--json"])
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("products 'unknown' need compiled loops, which there are not (")
    assert done.stderr.count("note: this runs without compiled loops") == 1


@needs_numba
def test_where_nothing_can_be_written_each_process_compiles_for_itself(monkeypatch, capsys):
    import numba

    def njit(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(numba, "njit", njit)
    compiled._say.cache_clear()
    for _ in range(2):
        assert compiled.compile_with(fastmath=False)(abs) is abs
    assert capsys.readouterr().err.count("cannot be kept on disk") == 1


PRELUDE = """
import os, sys
from threading import Thread
import numpy as np
from minispike import backend
from minispike.kernels import compiled, host
from minispike.neuron import IntegrateAndFire, Neuron
rng = np.random.default_rng(0)
x = (1.5 * rng.standard_normal((5, 40, 32))).astype("float32")
neuron = Neuron(tau=1.7, v_threshold=0.3)
def run(cls):
    function = cls()
    function.xp = np
    return function, function.forward(x, neuron=neuron)
"""


@needs_numba
@pytest.mark.slow
def test_backward_compiled_first_does_not_change_the_spikes(tmp_path):
    """Numba hands fastmath on to helpers that a fastmath function compiles first."""
    code = (
        PRELUDE
        + """
function, expected = run(IntegrateAndFire)
twin = host.CompiledIntegrateAndFire()
twin.xp = np
zero, one = np.zeros(1, "float32"), np.ones(1, "float32")
twin.x, twin.shape, twin.neuron = x.reshape(5, -1, 1), x.shape, neuron
twin.affine = zero, one, zero
gx = twin.backward(np.ones_like(x))
loops = compiled.loops("loops")
assert not loops.normalise_and_fire.signatures and loops.back_through_time.signatures
assert np.array_equal(run(host.CompiledIntegrateAndFire)[1], expected)
np.testing.assert_allclose(gx, function.backward(np.ones_like(x)), rtol=1e-4, atol=1e-6)
"""
    )
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("compiling fast loops") == 1


@needs_numba
@pytest.mark.slow
def test_two_threads_may_compile_at_once_and_a_forked_process_computes(tmp_path):
    code = (
        PRELUDE
        + """
expected, found = run(IntegrateAndFire)[1], []
threads = [Thread(target=lambda: found.append(run(host.CompiledIntegrateAndFire)[1])) for _ in range(2)]
for each in threads:
    each.start()
for each in threads:
    each.join()
assert len(found) == 2 and all(np.array_equal(s, expected) for s in found)
if hasattr(os, "fork"):
    child = os.fork()
    if not child:
        os._exit(not np.array_equal(run(host.CompiledIntegrateAndFire)[1], expected))
    assert os.waitpid(child, 0)[1] == 0
"""
    )
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
