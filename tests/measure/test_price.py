"""The price on spikes: its value is the counted additions, its gradient that of finite differences."""

from functools import partial

import numpy as np
import pytest

from minispike import Tensor, check_grads, create_model, no_grad, ops, trace
from minispike.autograd import as_tensor
from minispike.measure.energy import additions_per_image, count, counted
from minispike.measure.price import Additions, Price, priced
from minispike.train import calibrate, classify

from ..blocks.test_blocks import lively

DIRECT = {"ac": 0.0, "mac": 1.0}  # with these energies `events` takes each transform's direct form
NAMES = {  # a model of each family, and one that takes frames
    "Spikformer": "spikformer_1_64_digits",
    "Attention-free, Fourier": "attention_free_fft1d_1_64_digits",
    "Attention-free, Haar": "attention_free_haar_1_64_digits",
    "Spikformer V2": "spikformer_v2_1_64_digits",
    "SAFormer": "saformer_1_64_digits",
    "events": "saformer_2_64_fashion_dvs",
}


def spent_by(model, x, kind=Additions):
    """Return what a model's run on x has spent, as `priced` finds it."""
    x = as_tensor(x)
    spent = kind(x)
    with trace(spent):
        model(x)
    return spent


def awake(name, rng, **overrides):
    """Return a model that fires in every layer, and an input for it."""
    model = lively(create_model(name, **overrides), rng)
    frames = model.in_channels == 2
    x = rng.poisson(0.5, (3, 2, 32, 32, 2)) if frames else rng.standard_normal((3, 8, 8, 1))
    x = x.astype(model.head.weight.dtype)
    calibrate(model, [(x, None)])
    return model.eval(), x


# ---------------------------------------------------------------- the value


@pytest.mark.parametrize("family", NAMES)
def test_the_price_is_the_counted_additions(family, rng):
    model, x = awake(NAMES[family], rng, dtype="float64")
    found, spent = count(model, x, DIRECT), spent_by(model, x)
    assert spent.total.item() == found.total("events").ac * found.images
    entered = [row for row in found.rows if row.kind != "analog"]
    assert spent.macs == sum(row.macs for row in entered) and len(entered) >= 8


def test_additions_per_image_are_those_of_all_batches(rng):
    model, x = awake(NAMES["Spikformer"], rng)
    expected = count(model, x).total("events").ac
    assert additions_per_image(model, x, 3) == expected == pytest.approx(additions_per_image(model, x, 2))
    frames = x.repeat(2, -1)[None].repeat(4, 0)  # [T, B, H, W, 2]
    events = create_model(NAMES["events"], img_size=8)
    assert additions_per_image(events, frames, 2) == pytest.approx(additions_per_image(events, frames, 99))


# ---------------------------------------------------------------- the gradient


class Held(Additions):
    """Additions with choices and fan-outs that were made before, by a run with spikes."""

    def __init__(self, x, choices):
        super().__init__(x)
        self.choices = iter(choices)

    def choose(self, function, arrays, signals):
        return next(self.choices)


class Free(Held):
    """A control: in products of two signals, fan-outs follow the other signal. Its gradient is not ours."""

    def choose(self, function, arrays, signals):
        i, kind, fan = next(self.choices)
        if len(signals) == 2:
            q, k = arrays
            fan = (k.sum(-1)[..., None, :], q.sum(-2)[..., None])[i]
        return i, kind, fan


def choices_of(model, x):
    """Return what a run with spikes chooses, in running order."""
    found = []

    class Noted(Additions):
        def choose(self, *given):
            found.append(counted(*given))
            return found[-1]

    with no_grad():
        spent_by(model, x, Noted)
    return found


def smooth_price(family, rng, kind):
    """Return price(x) of a smooth network, with choices and fan-outs held, and the network's parameters."""
    settings = dict(dtype="float64", detach_reset=False)
    model, x = awake(NAMES[family], rng, **settings)
    choices = choices_of(model, x)
    smooth = create_model(NAMES[family], smooth=True, **settings)
    smooth.load_state_dict(model.state_dict())
    smooth.eval()

    def price(_=None):
        return spent_by(smooth, x, lambda x: kind(x, choices)).total * 1e-4

    return price, [p for path, p in smooth.named_parameters() if not path.startswith("head")]


@pytest.mark.parametrize("family", [name for name in NAMES if name != "events"])
def test_the_gradient_is_that_of_finite_differences(family, rng):
    price, parameters = smooth_price(family, rng, Held)
    check_grads(price, *parameters)


def test_fan_outs_that_are_not_held_fail_on_ssa(rng):
    price, parameters = smooth_price("Spikformer", rng, Free)
    with pytest.raises(AssertionError, match="finite difference"):
        check_grads(price, *parameters)


def test_an_entry_that_is_zero_feels_what_a_spike_would_cost(rng):
    x, fan = Tensor(np.array([[0.0, 1, 2], [0, 0, -3]]), requires_grad=True), np.array([4, 0, 5])
    price = Price.apply(x, fan=fan)
    assert price.item() == 4 * 0 + 0 * 1 + 5 * 2 + 5 * 3
    price.backward()
    np.testing.assert_array_equal(x.grad, [[4, 0, 5], [4, 0, -5]])


def test_the_price_goes_to_both_summands_and_to_the_winner_of_a_pool(rng):
    """By hand: a map of 3 outputs reads a pool of 2 × 2 windows, and a map of 5 outputs a sum."""
    spikes = rng.integers(0, 2, (1, 1, 4, 4, 2)).astype("float64")
    x, y = (Tensor(each, requires_grad=True) for each in (spikes, np.ones_like(spikes)))
    spent = Additions(x)
    spent.signals[y] = False
    with trace(spent):
        ops.linear(ops.max_pool2d(x, 2, stride=2), np.ones((2, 3)))
        ops.linear(x + y, np.ones((2, 5)))
    spent.total.backward()
    np.testing.assert_array_equal(y.grad, np.full(y.shape, 5.0))
    windows = (x.grad - 5).reshape(2, 2, 2, 2, 2).swapaxes(1, 2).reshape(4, 4, 2)  # [window, tap, C]
    first = spikes.reshape(2, 2, 2, 2, 2).swapaxes(1, 2).reshape(4, 4, 2).argmax(1)
    np.testing.assert_array_equal(windows, 3.0 * (np.arange(4)[None, :, None] == first[:, None]))


# ---------------------------------------------------------------- in a training


def test_the_objective_adds_the_price_to_the_loss(rng):
    model, x = awake(NAMES["Spikformer"], rng, dtype="float64")
    labels = np.zeros(len(x), int)
    plain, counts = classify(model, x, labels, label_smoothing=0.1)
    loss, priced_counts = priced(partial(classify, label_smoothing=0.1), 2.0)(model, x, labels)
    spent = spent_by(model, x)
    price = spent.total.item() / spent.macs
    assert loss.item() == pytest.approx(plain.item() + 2 * price, rel=1e-12)
    assert priced_counts == counts | {"price": pytest.approx(price * len(x))}


def test_the_price_does_not_depend_on_the_number_of_images_and_steps(rng):
    model, x = awake(NAMES["Spikformer"], rng)
    twice = np.concatenate([x, x])
    a, b = (spent_by(model, each) for each in (x, twice))
    assert a.total.item() / a.macs == pytest.approx(b.total.item() / b.macs, rel=1e-6)
    model.T = 1
    head = 3 * 64 * 10  # it sees the mean over time, once
    assert 4 * (spent_by(model, x).macs - head) == a.macs - head


def test_without_spikes_there_is_no_price():
    with pytest.raises(ValueError, match="no contraction that spikes enter"):
        priced(lambda model, x, _: (x.sum(), {}), 1.0)(None, np.ones((1, 8, 8, 1)), None)
