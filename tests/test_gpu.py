"""What only a GPU shows: large arrays, float32, streams, whole trainings. pytest -m gpu"""

import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest

from data_utils.images.digits import load_digits
from minispike import Tensor, backend, create_model, fit, load, no_grad, ops, optim, save, to_device, to_host
from minispike.fused import norm_lif
from minispike.nn import LIF, BatchNorm

pytestmark = pytest.mark.gpu


def layers(channels):
    norm = BatchNorm(channels).to("cuda", "float32")
    norm.weight.data[...] = 2
    return norm, LIF()


@pytest.mark.parametrize("shape", [(4, 1024, 384), (4, 5000, 48), (1, 70000, 96), (4, 2, 100)])
def test_norm_and_neurons_in_both_storeys(shape):
    import cupy

    x = cupy.random.default_rng(0).standard_normal(shape, dtype="float32")
    found = []
    for storey in (backend.plain, nullcontext):
        norm, neuron = layers(shape[-1])
        leaf = Tensor(x, requires_grad=True)
        with storey():
            y = norm_lif(leaf, norm, neuron, 4 if shape[0] == 1 else 1)
            y.backward(cupy.ones_like(y.data))
        found.append([y.data, leaf.grad, norm.weight.grad, norm.bias.grad, norm.running_var])
    (s, *one), (s2, *two) = found
    assert 0.05 < float(s.mean()) < 0.95
    assert int((s != s2).sum()) <= 2e-6 * s.size  # the moments of both storeys are summed in another order
    for a, b in zip(one, two, strict=True):
        scale = float(abs(a).max())
        assert float(abs(a - b).mean()) <= 1e-5 * scale


def test_a_piece_of_more_than_1_GiB():
    import cupy

    x = cupy.random.default_rng(0).standard_normal((4, 2**20, 72), dtype="float32")  # 1.2 GiB
    norm, neuron = layers(72)
    norm.eval()
    with no_grad():
        whole = norm_lif(x, norm, neuron).data
        parts = [norm_lif(x[:, part], norm, neuron).data for part in (slice(0, 1000), slice(-1000, None))]
    assert (whole[:, :1000] == parts[0]).all() and (whole[:, -1000:] == parts[1]).all()
    first = to_host(whole[:, :64])
    with no_grad():
        assert (norm_lif(to_host(x[:, :64]), norm.to("cpu"), neuron).data == first).all()


def test_a_convolution_in_pieces_of_more_than_1_GiB():
    import cupy

    x = cupy.random.default_rng(0).integers(0, 2, (160, 64, 64, 48)).astype("float32")  # windows: 1.1 GiB
    w = cupy.random.default_rng(1).standard_normal((3, 3, 48, 8), dtype="float32")
    whole = ops.conv2d(x, w, padding=1).data
    assert float(abs(whole[-3:] - ops.conv2d(x[-3:], w, padding=1).data).max()) < 1e-4


def test_everything_runs_on_the_current_stream():
    import cupy

    x, stream = np.random.default_rng(0).standard_normal((4, 5000, 48)).astype("float32"), cupy.cuda.Stream()
    norm, neuron = layers(48)
    with stream, no_grad():
        there = norm_lif(to_device(x, "cuda"), norm, neuron).data
    stream.synchronize()
    norm, neuron = layers(48)
    with no_grad():
        here = norm_lif(to_device(x, "cuda"), norm, neuron).data
    assert (there == here).all()


def test_float64_losses_of_30_steps_are_the_processors():
    """To 1e-9, until rounding flips a spike: from there on the two are different trainings."""
    (images, labels), _ = load_digits()
    images = images.astype("float64")

    def losses(device):
        model, found = create_model("spikformer_1_64_digits", dtype="float64").to(device), []
        optimizer = optim.AdamW(model.parameters(), 1e-3)

        def batches(_):
            return [(images[32 * i : 32 * i + 32], labels[32 * i : 32 * i + 32]) for i in range(30)]

        def note(at):
            found.append(at.sums["loss"])

        fit(model, optimizer, batches, epochs=1, on_step=note, progress=False)
        return np.diff([0.0, *found]) / 32

    here, there = losses("cpu"), losses("cuda")
    same = abs(here - there) <= 1e-9 * abs(here)
    first = len(same) if same.all() else int(same.argmin())
    print(f"equal for {first} steps of {len(same)}")
    assert first >= 3 and abs(here - there).max() < 0.5


def test_what_is_saved_on_a_gpu_is_read_on_a_processor(tmp_path):
    model = create_model("saformer_1_64_digits").to("cuda")
    save(model, tmp_path / "model.safetensors")
    (images, _), _ = load_digits()
    with no_grad():
        there = to_host(model.eval()(to_device(images[:64], "cuda")).data)
        here = load(tmp_path / "model.safetensors").eval()(images[:64]).data
    assert abs(there - here).max() < 1e-3


@pytest.mark.parametrize("trained, evaluated", [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_is_evaluated_where_it_was_not_trained(tmp_path, trained, evaluated):
    run = [sys.executable, "-m", "minispike"]
    options = f"train --recipe digits --epochs 1 --device {trained} --out {tmp_path / 'run'}".split()
    subprocess.run([*run, *options], check=True)
    subprocess.run([*run, "evaluate", str(tmp_path / "run"), "--device", evaluated], check=True)
