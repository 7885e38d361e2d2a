"""Optimizers against their equations, the schedule, and training: it learns, repeats, and stops in time."""

import math
from functools import partial

import numpy as np
import pytest

from lessons.common import Batches
from minispike import BatchNorm, Module, Parameter, Tensor, create_model, evaluate, fit, ops
from minispike.backend import get_device, to_device
from minispike.optim import SGD, AdamW, cosine_with_warmup
from minispike.train import Progress, calibrate, count_correct

from .blocks.test_blocks import lively

SMALL = dict(embed_dim=16, num_heads=4, mlp_ratio=2, T=2)


def parameter(*values):
    p = Parameter(np.array(values))
    p.grad = np.array(values) * 0 + 0.5
    return p


# ---------------------------------------------------------------- optimizers


def test_sgd_with_momentum():
    p = parameter(1.0)
    optimizer = SGD([p], lr=0.1, momentum=0.9)
    velocity, expected = 0.0, 1.0
    for _ in range(3):
        optimizer.step()
        velocity = 0.9 * velocity + 0.5
        expected -= 0.1 * velocity
    np.testing.assert_allclose(p.data, expected, rtol=1e-15)


@pytest.mark.parametrize("shape, decays", [((1,), False), ((1, 1), True), ((1, 1, 1, 1), True)])
def test_adamw_is_its_equation_and_decays_only_weights(shape, decays):
    p = Parameter(np.full(shape, 1.0))
    optimizer = AdamW([p], lr=0.1, betas=(0.8, 0.9), eps=0.01, weight_decay=0.3)
    m = v = 0.0
    expected = 1.0
    for t, g in enumerate([0.5, -0.2, 0.1], 1):
        p.grad = np.full(shape, g)
        optimizer.step()
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        expected *= 1 - 0.1 * 0.3 if decays else 1
        expected -= 0.1 * (m / (1 - 0.8**t)) / (math.sqrt(v / (1 - 0.9**t)) + 0.01)
        np.testing.assert_allclose(p.data, expected, rtol=1e-12)


def parameter_by_parameter(arrays, gradients, scales, **settings):
    """AdamW as a loop over parameters, in its order of operations."""
    arrays = [array.copy() for array in arrays]
    averages = [(np.zeros_like(a), np.zeros_like(a)) for a in arrays]
    for t, step in enumerate(gradients, 1):
        for p, g, (m, v), scale in zip(arrays, step, averages, scales, strict=True):
            if g is None:
                continue
            lr = 1e-2 * scale
            if p.ndim >= 2:
                p *= 1 - lr * 0.3
            m += (1 - 0.9) * (g - m)
            v += (1 - 0.999) * (g * g - v)
            p -= lr / (1 - 0.9**t) * m / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return arrays


@pytest.mark.parametrize("storey", ["plain", "twin"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adamw_on_flat_arrays_is_bit_for_bit_that_of_each_parameter(rng, monkeypatch, dtype, storey):
    """With rates of their own, with and without decay, and some without a gradient in some steps."""
    monkeypatch.setattr("minispike.kernels.compiled.LEAST", 1 if storey == "twin" else 2**60)
    shapes = [(5,), (3, 4), (7,), (2, 2, 3), (1,), (6, 1), (100, 77)]
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    scales = [1.0, 0.5, 1.0, 0.5, 0.25, 1.0, 1.0]
    gradients = [[rng.standard_normal(shape).astype(dtype) for shape in shapes] for _ in range(4)]
    gradients[1][3] = gradients[2][0] = gradients[2][5] = None
    parameters = [Parameter(array.copy()) for array in arrays]
    optimizer = AdamW(parameters, 1e-2, weight_decay=0.3, lr_scales=scales)
    for step in gradients:
        for p, g in zip(parameters, step, strict=True):
            p.grad = g
        optimizer.step()
    for p, expected in zip(parameters, parameter_by_parameter(arrays, gradients, scales), strict=True):
        assert p.dtype == dtype and np.array_equal(p.data, expected)


def test_flat_arrays_follow_the_parameters(rng):
    """After to(), load_state_dict() and another optimizer, a step still moves the model's arrays."""
    model = create_model("spikformer_1_64_digits", **SMALL)
    optimizer = AdamW(model.parameters(), 0.1)

    def moves(optimizer):
        before = [p.data.copy() for p in model.parameters()]
        for p in model.parameters():
            p.grad = np.ones_like(p.data)
        optimizer.step()
        return all((p.data != b).any() for p, b in zip(model.parameters(), before, strict=True))

    assert moves(optimizer)
    model.load_state_dict({path: 2 * array for path, array in model.state_dict().items()})
    assert moves(optimizer)
    model.to(dtype="float64")
    assert moves(optimizer) and optimizer.m[0].dtype == "float64"
    other = AdamW(model.parameters(), 0.1)
    assert moves(other) and moves(optimizer) and moves(other)
    assert all(p.data.base is other.flat[0] for p in model.parameters())


def test_adamw_refuses_parameters_of_two_dtypes():
    p, q = Parameter(np.ones(2)), Parameter(np.ones(2, "float32"))
    with pytest.raises(ValueError, match="one dtype on one device, got float32 on cpu, float64 on cpu"):
        AdamW([p, q])


def test_zero_grad_forgets_and_a_parameter_without_gradient_stays():
    for make in (SGD, AdamW):
        p, q = parameter(1.0, 2.0), parameter(1.0)
        optimizer = make([p, q], lr=0.1)
        q.grad = None
        optimizer.step()
        assert q.data == [1] and p.data[0] != 1
        optimizer.zero_grad()
        assert p.grad is None


def test_cosine_with_warmup():
    def rate(epoch):
        return cosine_with_warmup(epoch, epochs=100, lr=1.0, min_lr=0.2, warmup=10, warmup_lr=0.1)

    assert rate(0) == 0.1 and abs(rate(5) - 0.55) < 1e-12  # w0 + (lr − w0)·e/W
    assert abs(rate(10) - (0.2 + 0.4 * (1 + math.cos(math.pi * 0.1)))) < 1e-12  # the absolute epoch
    assert abs(rate(50) - 0.6) < 1e-12 and abs(rate(100) - 0.2) < 1e-12
    assert cosine_with_warmup(0, epochs=10, lr=3.0) == 3.0


@pytest.mark.parametrize("make", [partial(SGD, lr=0.1, momentum=0.9), partial(AdamW, lr=0.1)])
def test_an_optimizer_goes_on_from_its_state(rng, make):
    """Three steps, or two and one more with a new optimizer that has the state: the same, bit for bit."""
    gradients = rng.standard_normal((3, 4))

    def steps(optimizer, parameter, gradients):
        for g in gradients:
            parameter.grad = g
            optimizer.step()
        return optimizer

    whole, cut, careless = (Parameter(np.ones(4)) for _ in range(3))
    steps(make([whole]), whole, gradients)
    first = steps(make([cut]), cut, gradients[:2])
    first.lr = 0.05
    state = {name: np.array(array) for name, array in first.state_dict().items()}
    careless.data[...] = cut.data
    again = make([cut])
    again.load_state_dict(state)
    assert again.lr == 0.05 and type(again.lr) is float
    again.lr = 0.1
    steps(again, cut, gradients[2:])
    assert np.array_equal(cut.data, whole.data)
    steps(make([careless]), careless, gradients[2:])  # the negative control
    assert not np.array_equal(careless.data, whole.data)


def test_an_optimizers_state_moves_between_devices(device):
    model = create_model("spikformer_1_64_digits", **SMALL)
    optimizer = AdamW(model.parameters())
    for p in model.parameters():
        p.grad = p.data
    optimizer.step()
    there = AdamW(model.to(device).parameters())
    there.load_state_dict(optimizer.state_dict())
    assert there.t == 1 and all(get_device(m).name == device for m in there.m)
    back = AdamW(model.to("cpu").parameters())
    back.load_state_dict(there.state_dict())
    assert all(np.array_equal(a, b) for a, b in zip(back.m + back.v, optimizer.m + optimizer.v, strict=True))


def test_an_optimizers_state_names_all_that_changes_and_refuses_anothers():
    p, q = parameter(1.0, 2.0), parameter(1.0)
    optimizer = AdamW([p, q])
    optimizer.step()
    state = optimizer.state_dict()
    assert list(state) == ["lr", "t", "v.0", "v.1", "m.0", "m.1"] and state["t"] == 1
    assert state["m.0"] is optimizer.m[0]
    for other in (SGD([p, q]), AdamW([p]), AdamW([q, p])):
        with pytest.raises(ValueError, match=f"not the state of such an {type(other).__name__}: see "):
            other.load_state_dict(state)


# ---------------------------------------------------------------- training


def toy(n=24, seed=0):
    """Images whose class is the bright quarter."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    images = 0.3 * rng.standard_normal((n, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(label, 2)
        image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 2
    return images.astype("float32"), labels


def train(epochs=3, seed=0, n=24, **options):
    model = create_model("spikformer_1_64_digits", rng=seed, num_classes=4, **SMALL)
    optimizer = AdamW(model.parameters(), 1e-2)
    batches = Batches(*toy(n), 8, seed)
    history = fit(model, optimizer, batches, epochs=epochs, progress=False, **options)
    return model, history


def test_it_learns_and_reports():
    records = []
    images, labels = toy(40, seed=1)
    model, history = train(12, n=96, test=Batches(images, labels, 16), on_epoch=records.append)
    assert history == records and [r["epoch"] for r in history] == list(range(1, 13))
    assert history[-1]["loss"] < 0.5 * history[0]["loss"] and history[-1]["test_accuracy"] > 0.9
    loss, accuracy = evaluate(model, Batches(images, labels, 7))
    assert abs(loss - history[-1]["test_loss"]) < 1e-5 and accuracy == history[-1]["test_accuracy"]
    assert set(history[0]) == {"epoch", "lr", "loss", "accuracy", "seconds", "test_loss", "test_accuracy"}


def test_a_run_repeats_bit_for_bit():
    (a, first), (b, second) = train(), train()
    assert all(np.array_equal(x, b.state_dict()[path]) for path, x in a.state_dict().items())
    assert [r["loss"] for r in first] == [r["loss"] for r in second]
    assert [r["loss"] for r in train(seed=1)[1]] != [r["loss"] for r in first]


def test_it_overfits_eight_samples():
    rng = np.random.default_rng(0)
    model = create_model("spikformer_1_64_digits", T=2, embed_dim=32)
    x, labels = rng.standard_normal((8, 8, 8, 1)).astype("float32"), rng.integers(0, 10, 8)
    optimizer = AdamW(model.parameters(), 1e-2, weight_decay=0)
    history = fit(model, optimizer, Batches(x, labels, 8), epochs=60, progress=False)
    assert history[-1]["accuracy"] == 1 and history[-1]["loss"] < 0.1


def test_the_schedule_is_followed_within_an_epoch():
    seen = []

    def schedule(epoch):
        seen.append(epoch)
        return 1e-3

    train(2, schedule=schedule)
    np.testing.assert_allclose(seen, [0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3])


def test_label_smoothing_reaches_the_loss():
    assert train(1, label_smoothing=0.3)[1][0]["loss"] != train(1)[1][0]["loss"]


def test_progress_is_shown_and_can_be_silenced(capsys):
    model = create_model("spikformer_1_64_digits", num_classes=4, **SMALL)
    fit(model, SGD(model.parameters()), Batches(*toy(), 8), epochs=1)
    bar = capsys.readouterr().err
    assert "epoch 1/1" in bar and "loss=" in bar and "accuracy=" in bar
    train(1)
    assert capsys.readouterr().err == ""


def test_evaluation_restores_the_mode_and_leaves_no_trace():
    model, batches = create_model("spikformer_1_64_digits", num_classes=4, **SMALL), Batches(*toy(), 8)
    before = {path: array.copy() for path, array in model.state_dict().items()}
    evaluate(model, batches)
    assert model.training and all(np.array_equal(before[path], x) for path, x in model.state_dict().items())
    evaluate(model.eval(), batches)
    assert not model.training
    with pytest.raises(ValueError, match="no batches"):
        evaluate(model, [])


@pytest.mark.parametrize("training", [True, False])
def test_calibration_is_the_mean_over_batches_and_changes_nothing_else(rng, training):
    batches = [(rng.standard_normal((4, 5, 3)) * scale + 2, None) for scale in (1, 2, 6)]
    model = BatchNorm(3).to(dtype="float64").train(training)
    model.running_mean[...], model.momentum = 99, 0.2
    calibrate(model, batches)
    each = [images.reshape(20, 3) for images, _ in batches]
    np.testing.assert_allclose(model.running_mean, np.mean([x.mean(0) for x in each], 0), rtol=1e-12)
    np.testing.assert_allclose(model.running_var, np.mean([x.var(0, ddof=1) for x in each], 0), rtol=1e-12)
    assert model.momentum == 0.2 and model.training == training
    assert (model.weight.data == 1).all() and model.weight.grad is None
    with pytest.raises(ValueError, match="batch_norm expects"):
        calibrate(model, [*batches, (np.zeros((4, 5, 2)), None)])
    assert model.momentum == 0.2 and model.training == training
    calibrate(model, [])
    assert (model.running_mean < 9).all()


def test_a_training_calibrates_after_each_epoch_and_learns_the_same():
    tests = Batches(*toy(40, seed=1), 16)
    (plain, before), (model, after) = (train(2, calibration=n, test=tests) for n in (0, 2))
    for path, array in model.state_dict().items():
        assert np.array_equal(array, plain.state_dict()[path]) == ("running" not in path), path
    assert [r["loss"] for r in after] == [r["loss"] for r in before]
    assert all(a["test_loss"] != b["test_loss"] for a, b in zip(after, before, strict=True))
    calibrate(plain, list(Batches(*toy(), 8, 0)(1))[:2])
    assert all(np.array_equal(x, plain.state_dict()[path]) for path, x in model.state_dict().items())


def test_a_loss_that_is_not_finite_stops_and_names_the_layer():
    model = create_model("spikformer_1_64_digits", num_classes=4, **SMALL)
    model.head.weight.data[0, 0] = np.nan
    before = model.blocks[0].mlp.fc1.map.weight.data.copy()
    with pytest.raises(
        FloatingPointError, match=r"epoch 1, step 1: loss nan; .* output of MatMulAdd in head"
    ):
        fit(model, SGD(model.parameters()), Batches(*toy(), 8), epochs=1, progress=False)
    assert np.array_equal(before, model.blocks[0].mlp.fc1.map.weight.data)  # the step was not taken


def test_a_nan_that_spikes_would_hide_is_found():
    """NaN >= 1 is false: a neuron turns NaN into silence, the loss stays finite; gradients show it."""
    model = create_model("spikformer_1_64_digits", num_classes=4, **SMALL)
    model.blocks[0].mlp.fc1.map.weight.data[0, 0] = np.nan
    assert np.isfinite(ops.softmax_cross_entropy(model(toy()[0]), toy()[1]).item())
    with pytest.raises(FloatingPointError, match=r"output of MatMulAdd in blocks.0.mlp.fc1.map"):
        fit(model, SGD(model.parameters()), Batches(*toy(), 8), epochs=1, progress=False)


def test_nothing_is_written_in_a_step_that_is_not_finite_and_the_first_layer_is_named():
    """A weight becomes NaN between two steps. Parameters and the optimizer's averages stay as they were."""
    model = lively(create_model("spikformer_1_64_digits", num_classes=4, **SMALL), np.random.default_rng(0))
    optimizer, kept = AdamW(model.parameters(), 1e-3), {}

    def on_step(at):
        model.blocks[0].mixer.proj.map.weight.data[0] = np.nan
        model.blocks[0].mlp.fc1.map.weight.data[0] = np.nan
        kept.update({path: array.copy() for path, array in optimizer.state_dict().items()})
        kept.update({path: p.data.copy() for path, p in model.named_parameters()})

    with pytest.raises(FloatingPointError, match=r"epoch 1, step 2: .* MatMulAdd in blocks.0.mixer.proj.map"):
        fit(model, optimizer, Batches(*toy(), 8), epochs=1, on_step=on_step, progress=False)
    now = optimizer.state_dict() | {path: p.data for path, p in model.named_parameters()}
    assert now.keys() == kept.keys() and float(kept["t"]) == 1
    for path, array in now.items():
        assert np.array_equal(array, kept[path], equal_nan=True), path


def test_a_step_that_blows_up_is_found():
    model = lively(create_model("spikformer_1_64_digits", num_classes=4, **SMALL), np.random.default_rng(0))
    with pytest.raises(FloatingPointError, match="training stopped at epoch"), np.errstate(all="ignore"):
        fit(model, SGD(model.parameters(), lr=1e38), Batches(*toy(), 8), epochs=3, progress=False)


def test_training_goes_on_between_any_two_steps():
    """fit is stopped after each of its six steps in turn, and taken up there."""
    whole, history = train(2, schedule=lambda epoch: 1e-2 / (1 + epoch))

    class Stop(Exception):
        pass

    class Rest(Batches):
        def __call__(self, epoch, start=0):
            steps = list(super().__call__(epoch))
            return type(
                "Steps", (), {"__len__": lambda _: len(steps), "__iter__": lambda _: iter(steps[start:])}
            )()

    for last in range(1, 7):
        model = create_model("spikformer_1_64_digits", num_classes=4, **SMALL)
        optimizer, at = AdamW(model.parameters(), 1e-2), Progress()
        options = dict(epochs=2, schedule=lambda epoch: 1e-2 / (1 + epoch), start=at, progress=False)

        def stop(at, last=last, optimizer=optimizer):
            if optimizer.t == last:
                raise Stop

        with pytest.raises(Stop):
            fit(model, optimizer, Rest(*toy(), 8), on_step=stop, **options)
        assert (at.epoch, at.step, at.seen) == ((last - 1) // 3, (last - 1) % 3 + 1, 8 * ((last - 1) % 3 + 1))
        again = fit(model, optimizer, Rest(*toy(), 8), **options)
        assert all(np.array_equal(a, model.state_dict()[path]) for path, a in whole.state_dict().items())
        assert [{**r, "seconds": 0} for r in again] == [{**r, "seconds": 0} for r in history]


def test_soft_targets_train_and_are_counted_by_their_largest():
    logits = Tensor(np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]]))
    assert count_correct(logits, np.array([[0.6, 0.4, 0.0], [0.6, 0.4, 0.0]])) == 1
    assert count_correct(logits, np.array([0, 2])) == 2
    targets = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    there = ops.softmax_cross_entropy(Tensor(to_device(logits.data, "stand_in")), targets, 0.1).item()
    assert abs(there - ops.softmax_cross_entropy(logits, targets, 0.1).item()) < 1e-12
    images, labels = toy()
    hard, soft = (
        fit(
            model, AdamW(model.parameters(), 1e-2), lambda epoch, y=y: [(images, y)], epochs=2, progress=False
        )
        for y, model in (
            (y, create_model("spikformer_1_64_digits", num_classes=4, **SMALL))
            for y in (labels, np.eye(4, dtype="float32")[labels])
        )
    )
    assert [r["accuracy"] for r in hard] == [r["accuracy"] for r in soft]
    np.testing.assert_allclose([r["loss"] for r in hard], [r["loss"] for r in soft], rtol=1e-5)


def test_frames_train_as_well():
    images, labels = toy()

    def batches(epoch):
        for x, y in Batches(images, labels, 8)(epoch):
            yield np.repeat(x[None], 2, 0), y  # [T, B, H, W, C]; a generator has no length

    results = []
    for source in (Batches(images, labels, 8), batches):
        model = create_model("spikformer_1_64_digits", num_classes=4, **SMALL)
        results += fit(model, SGD(model.parameters()), source, epochs=1, progress=False)
    assert abs(results[0]["loss"] - results[1]["loss"]) < 1e-4


def test_frames_count_samples_and_not_steps(rng):
    """Frames are [T, B, H, W, C]: with T = 3 and four right of B = 6 the accuracy is 4/6."""
    frames = rng.standard_normal((3, 6, 8, 8, 1)).astype("float32")
    model = create_model("spikformer_1_64_digits", embed_dim=16, num_heads=4)
    labels = model(frames).data.argmax(1)
    labels[:2] = (labels[:2] + 1) % 10
    optimizer = AdamW(model.parameters(), lr=0.0)
    (record,) = fit(model, optimizer, lambda epoch: [(frames, labels)], epochs=1, progress=False)
    assert record["accuracy"] == 4 / 6


def test_sgds_velocity_does_not_know_the_learning_rate():
    p = parameter(1.0)
    optimizer = SGD([p], lr=0.1, momentum=0.5)
    optimizer.step()  # v = 0.5
    optimizer.lr = 0.01
    optimizer.step()  # v = 0.75
    np.testing.assert_allclose(p.data, 1 - 0.1 * 0.5 - 0.01 * 0.75, rtol=1e-15)


def test_adamws_decay_goes_with_a_parameters_own_rate():
    p, q = Parameter(np.ones((1, 1))), Parameter(np.ones((1, 1)))
    optimizer = AdamW([p, q], lr=0.1, weight_decay=0.5, lr_scales=[1.0, 0.1])
    p.grad, q.grad = np.zeros((1, 1)), np.zeros((1, 1))
    optimizer.step()
    np.testing.assert_allclose([p.data.item(), q.data.item()], [0.95, 0.995], rtol=1e-15)
    with pytest.raises(ValueError):
        AdamW([p, q], lr_scales=[1.0]).step()


def test_adamw_starts_as_pytorchs():
    optimizer = AdamW([parameter(1.0)])
    found = optimizer.lr, optimizer.betas, optimizer.eps, optimizer.weight_decay
    assert found == (1e-3, (0.9, 0.999), 1e-8, 0.01)


def test_a_parameter_without_gradient_holds_up_no_other():
    for make in (SGD, AdamW):
        p, q = parameter(1.0), parameter(1.0)
        p.grad = None
        make([p, q], lr=0.1).step()
        assert p.data == [1] and q.data != [1]


def test_without_a_length_the_schedule_sees_whole_epochs():
    seen = []
    model, (images, labels) = create_model("spikformer_1_64_digits", num_classes=4, **SMALL), toy()
    options = dict(epochs=2, schedule=lambda epoch: seen.append(epoch) or 1e-3 * (1 + epoch), progress=False)
    history = fit(model, SGD(model.parameters()), lambda epoch: iter(2 * [(images, labels)]), **options)
    assert seen == [0, 0, 1, 1] and [record["lr"] for record in history] == [1e-3, 2e-3]


def test_a_model_in_eval_mode_is_trained_in_training_mode():
    model = create_model("spikformer_1_64_digits", num_classes=4, **SMALL).eval()
    before = model.stem.rpe.norm.running_mean.copy()
    fit(model, SGD(model.parameters()), Batches(*toy(), 8), epochs=1, progress=False)
    assert model.training and not np.array_equal(model.stem.rpe.norm.running_mean, before)


def test_time_spent_before_a_stop_counts():
    model, at = create_model("spikformer_1_64_digits", num_classes=4, **SMALL), Progress(seconds=1000.0)
    (record,) = fit(model, SGD(model.parameters()), Batches(*toy(), 8), epochs=1, start=at, progress=False)
    assert 1000 < record["seconds"] < 1100


class Root(Module):
    """Its loss √(first · last) is 0 and finite at last = 0, its gradients are not."""

    def __init__(self):
        self.first, self.last = Parameter(np.ones(1)), Parameter(np.zeros(1))


@pytest.mark.parametrize(
    "objective, message",
    [
        (lambda model, *_: ((model.first * model.last) ** 0.5, {}), "loss 0.0; .* the gradient of last"),
        (lambda model, *_: (model.first + math.inf, {}), "loss inf; .* output of Add in the model"),
    ],
    ids=["gradients", "loss"],
)
def test_a_loss_or_gradients_alone_that_are_not_finite_are_found(objective, message):
    model, batch = Root(), (np.ones((2, 1, 1, 1)), None)
    with pytest.raises(FloatingPointError, match=message), np.errstate(all="ignore"):
        options = dict(epochs=1, objective=objective, progress=False)
        fit(model, SGD(model.parameters()), lambda epoch: [batch], **options)
    assert model.first.data == [1]


def test_batches_are_brought_to_the_models_device(device):
    results, batches = [], Batches(*toy(), 8)
    for where in ("cpu", device):
        model = create_model("spikformer_1_64_digits", num_classes=4, **SMALL).to(where)
        options = dict(epochs=1, calibration=2, test=batches, progress=False)
        (record,) = fit(model, SGD(model.parameters(), 1e-3), batches, **options)
        results.append((record["loss"], record["test_loss"]))
    np.testing.assert_allclose(*results, rtol=1e-4)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda p: AdamW(p, lr=-1), r"lr must lie in \[0, inf\), got -1"),
        (lambda p: AdamW(p, lr=np.nan), r"lr must lie in \[0, inf\), got nan"),
        (lambda p: AdamW(p, lr=np.inf), r"lr must lie in \[0, inf\), got inf"),
        (lambda p: AdamW(p, weight_decay=-0.1), r"weight_decay must lie in \[0, inf\), got -0.1"),
        (lambda p: AdamW(p, betas=(0.9, 1.0)), r"betas must lie in \[0, 1\), got 1.0"),
        (lambda p: AdamW(p, eps=-1e-8), r"eps must lie"),
        (lambda p: AdamW(p, lr_scales=[1.0, 2.0]), "2 lr_scales for 1 parameters"),
        (lambda p: AdamW([]), "AdamW got no parameters"),
        (lambda p: SGD(p, lr=-0.1), "lr must lie"),
        (lambda p: SGD(p, momentum=1), r"momentum must lie in \[0, 1\), got 1"),
        (lambda p: SGD([]), "SGD got no parameters"),
    ],
)
def test_an_optimizer_refuses_at_once_what_cannot_train(make, message):
    with pytest.raises(ValueError, match=message):
        make([Parameter(np.ones(3))])


def test_fit_refuses_at_once_what_it_cannot_call():
    model = create_model("spikformer_1_64_digits", num_classes=4, **SMALL)
    optimizer, batches = SGD(model.parameters()), Batches(*toy(), 8)
    with pytest.raises(ValueError, match="fit needs epochs >= 1, got 0"):
        fit(model, optimizer, batches, epochs=0)
    with pytest.raises(TypeError, match=r"fit calls batches\(…\), so it must be a function; got a list"):
        fit(model, optimizer, list(batches(0)), epochs=1)
    with pytest.raises(TypeError, match=r"fit calls schedule\(…\), .* got a float"):
        fit(model, optimizer, batches, epochs=1, schedule=1e-3)


def test_a_running_variance_that_overflows_is_found():
    """Inputs of 1e25 have a variance beyond float32, but a finite loss: x̂ is 0 then."""
    model = create_model("spikformer_1_64_digits", num_classes=4, **SMALL)
    images, labels = toy()
    with (
        pytest.raises(FloatingPointError, match="the running variance of stem.stages.0.norm"),
        np.errstate(all="ignore"),
    ):
        fit(model, SGD(model.parameters()), Batches(1e25 * images, labels, 8), epochs=1, progress=False)
