"""Parity with PyTorch and SpikingJelly: pytest -m oracle, in an environment that has them.

pip install torch==2.13.0 && pip install --no-deps spikingjelly==2.0.0 && pip install loguru
"""

import warnings
from functools import partial

import numpy as np
import pytest

pytestmark = pytest.mark.oracle
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what importing them says of their own dependencies
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (see this file's first lines)")
    pytest.importorskip("spikingjelly.activation_based.neuron", reason="SpikingJelly is not installed")

from spikingjelly.activation_based import neuron as jelly  # noqa: E402
from spikingjelly.activation_based import surrogate as jelly_surrogate  # noqa: E402
from torch import nn  # noqa: E402

from minispike import BatchNorm, Parameter, Tensor, create_model, lif, ops, trace  # noqa: E402
from minispike import surrogate as ours  # noqa: E402
from minispike.backend import plain  # noqa: E402
from minispike.files.interop import load_official, to_official, to_ours  # noqa: E402
from minispike.files.torchfile import read_torch  # noqa: E402
from minispike.fused import NormaliseAndFire  # noqa: E402
from minispike.optim import AdamW, cosine_with_warmup  # noqa: E402

from ..blocks.test_blocks import lively  # noqa: E402
from . import transcription  # noqa: E402

torch.set_num_threads(2)


def close(a, b, tol, what=""):
    """Both are arrays or torch tensors; tol is absolute below one and relative above."""
    a, b = (x.detach().numpy() if isinstance(x, torch.Tensor) else np.asarray(x) for x in (a, b))
    assert a.shape == b.shape, f"{what}: {a.shape} and {b.shape}"
    gap = abs(a - b).max() if a.size else 0.0
    assert gap <= tol * max(1, abs(b).max()), f"{what}: apart by {gap:.3e}, largest {abs(b).max():.3e}"


def both(rng, *shapes, dtype="float64"):
    """Random leaves: ours, and torch's with the same values."""
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    return [Tensor(a, requires_grad=True) for a in arrays], [
        torch.tensor(a, requires_grad=True) for a in arrays
    ]


# ---------------------------------------------------------------- the neuron

SURROGATES = {
    "Sigmoid": (ours.Sigmoid(4.0), partial(jelly_surrogate.Sigmoid, alpha=4.0)),
    "ATan": (ours.ATan(2.0), partial(jelly_surrogate.ATan, alpha=2.0)),
    "Triangle": (ours.Triangle(1.0), partial(jelly_surrogate.PiecewiseQuadratic, alpha=1.0)),
    "FastSigmoid": (ours.FastSigmoid(2.0), partial(jelly_surrogate.SoftSign, alpha=2.0)),
    "Rectangle": (ours.Rectangle(1.0), None),
}


class JellyRectangle:
    """SpikingJelly has no surrogate of constant slope on |u| < 1/(2a), but takes any callable."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            ctx.save_for_backward(u)
            return (u >= 0).to(u)

        @staticmethod
        def backward(ctx, gy):
            return gy * (ctx.saved_tensors[0].abs() < 0.5).to(gy)

    def __call__(self, u):
        return self.Function.apply(u)


@pytest.mark.parametrize("dtype, tol", [("float32", 1e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("v_reset", [0.0, -0.25, None])
def test_lif_is_spikingjellys(rng, v_reset, detach_reset, name, dtype, tol):
    mine, theirs = SURROGATES[name]
    for tau, v_threshold in [(2.0, 1.0), (2.0, 0.5), (3.0, 1.0)]:
        (x,), (u,) = both(rng, (6, 500), dtype=dtype)
        x.data[...] = 2 * x.data + 1
        u = torch.tensor(x.data, requires_grad=True)
        node = jelly.LIFNode(
            tau=tau, v_threshold=v_threshold, v_reset=v_reset, detach_reset=detach_reset, step_mode="m",
            surrogate_function=theirs() if theirs else JellyRectangle(),
        )  # fmt: skip
        gy = rng.standard_normal((6, 500)).astype(dtype)
        y, z = lif(x, tau, v_threshold, v_reset, detach_reset, mine), node(u)
        np.testing.assert_array_equal(y.data, z.detach().numpy())
        assert 0.05 < y.data.mean() < 0.6
        y.backward(gy)
        z.backward(torch.tensor(gy))
        close(x.grad, u.grad, tol, f"τ = {tau}")


# ---------------------------------------------------------------- layers


@pytest.mark.parametrize(
    "k, stride, padding", [(3, 1, 1), (2, 2, 0), (3, 2, 1), (5, 1, 2), (1, 1, 0), (7, 2, 3)]
)
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolutions(rng, k, stride, padding, depthwise):
    out, w_shape = (4, (4, 1, k, k)) if depthwise else (5, (5, 4, k, k))
    (x, w, b), (xt, wt, bt) = both(rng, (2, 9, 8, 4), (k, k, 4) if depthwise else (k, k, 4, 5), (out,))
    f = ops.depthwise_conv2d if depthwise else ops.conv2d
    y = f(x, w, b, stride=stride, padding=padding)
    kernel = wt.permute(2, 0, 1).reshape(w_shape) if depthwise else wt.permute(3, 2, 0, 1)
    z = nn.functional.conv2d(
        xt.permute(0, 3, 1, 2), kernel, bt, stride=stride, padding=padding, groups=4 if depthwise else 1
    ).permute(0, 2, 3, 1)
    close(y.data, z, 1e-12)
    gy = rng.standard_normal(y.shape)
    y.backward(gy)
    z.backward(torch.tensor(gy))
    for mine, theirs in zip((x, w, b), (xt, wt, bt), strict=True):
        close(mine.grad, theirs.grad, 1e-12)


@pytest.mark.parametrize("k, stride, padding", [(3, 2, 1), (2, 2, 0), (3, 1, 1), (2, 1, 0)])
@pytest.mark.parametrize("binary", [False, True])
def test_pooling_and_its_ties(rng, k, stride, padding, binary):
    array = rng.standard_normal((3, 9, 8, 4))
    array = (array > 0.3).astype(float) if binary else array
    for mine, theirs in [(ops.max_pool2d, nn.MaxPool2d), (ops.avg_pool2d, nn.AvgPool2d)]:
        x, xt = Tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
        y = mine(x, k, stride=stride, padding=padding)
        z = theirs(k, stride, padding)(xt.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        gy = rng.standard_normal(y.shape)
        y.backward(gy)
        z.backward(torch.tensor(gy))
        close(y.data, z, 1e-14)
        close(x.grad, xt.grad, 1e-13)


def test_batch_norm_over_several_steps(rng):
    mine, theirs = BatchNorm(5), nn.BatchNorm1d(5).double()
    for array in (mine.weight.data, mine.bias.data):
        array[...] = rng.standard_normal(5)
    theirs.load_state_dict(theirs.state_dict() | {k: torch.tensor(v) for k, v in mine.state_dict().items()})
    for step in range(6):
        if step == 4:
            mine.eval(), theirs.eval()
        (x,), _ = both(rng, (3, 7, 5))
        x.data[...] = 4 + 3 * x.data
        xt = torch.tensor(x.data, requires_grad=True)
        y, z = mine(x), theirs(xt.reshape(-1, 5)).reshape(3, 7, 5)
        for parameter in (*mine.parameters(), *theirs.parameters()):
            parameter.grad = None
        gy = rng.standard_normal(y.shape)
        y.backward(gy)
        z.backward(torch.tensor(gy))
        close(y.data, z, 1e-12, f"step {step}")
        close(x.grad, xt.grad, 1e-12, f"gradient, step {step}")
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            close(a.grad, b.grad, 1e-12)
        close(mine.running_mean, theirs.running_mean, 1e-13)
        close(mine.running_var, theirs.running_var, 1e-13)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(rng, smoothing):
    (z,), (zt,) = both(rng, (6, 4))
    labels = rng.integers(0, 4, 6)
    loss = ops.softmax_cross_entropy(z, labels, smoothing)
    other = nn.functional.cross_entropy(zt, torch.tensor(labels), label_smoothing=smoothing)
    loss.backward()
    other.backward()
    close(loss.data, other, 1e-14)
    close(z.grad, zt.grad, 1e-14)


def test_adamw_and_the_schedule(rng):
    start, gradients = [rng.standard_normal((3, 4)), rng.standard_normal(4)], rng.standard_normal((25, 16))
    mine, theirs = [Parameter(a.copy()) for a in start], [nn.Parameter(torch.tensor(a)) for a in start]
    settings = dict(epochs=25, lr=5e-3, min_lr=1e-4, warmup=5, warmup_lr=1e-4)
    optimizer = AdamW(mine, lr=5e-3, weight_decay=0.06, eps=1e-4)
    groups = [{"params": theirs[:1], "weight_decay": 0.06}, {"params": theirs[1:], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=5e-3, eps=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        reference, lambda e: cosine_with_warmup(e, **settings) / 5e-3
    )
    for epoch, g in enumerate(gradients):
        for p, q, part in zip(mine, theirs, (g[:12].reshape(3, 4), g[12:]), strict=True):
            p.grad, q.grad = part, torch.tensor(part)
        optimizer.lr = cosine_with_warmup(epoch, **settings)
        assert abs(optimizer.lr - schedule.get_last_lr()[0]) < 1e-15
        optimizer.step()
        reference.step()
        schedule.step()
        for p, q in zip(mine, theirs, strict=True):
            close(p.data, q, 1e-12, f"epoch {epoch}")


# ---------------------------------------------------------------- the whole Spikformer

VARIANTS = {  # the three published forms at a small width: bias, scale, pools, kernels, static or frames
    "cifar": dict(
        name="spikformer_4_384_cifar10", side=16, static=True, channels=3, kind="linear", qkv_bias=True,
        scale=0.125, pools=(False, False, True, True),
    ),
    "imagenet": dict(
        name="spikformer_8_384_imagenet", side=32, static=True, channels=3, kind="conv", qkv_bias=False,
        scale=0.125, pools=(True, True, True, True),
    ),
    "dvs": dict(
        name="spikformer_2_256_cifar10dvs", side=32, static=False, channels=2, kind="conv", qkv_bias=False,
        scale=0.25, pools=(True, True, True, True),
    ),
}  # fmt: skip


def pair(variant, dtype, make_neuron, **overrides):
    """The same network twice, with the same weights: ours, and the transcription."""
    v = VARIANTS[variant]
    overrides = dict(embed_dim=32, num_heads=4, depth=2, img_size=v["side"], num_classes=5, T=4) | overrides
    model = lively(create_model(v["name"], dtype=dtype, **overrides), np.random.default_rng(3), gain=2.0)
    published = {key: v[key] for key in ("channels", "pools", "scale", "kind", "qkv_bias")}
    small = dict(dim=32, depth=2, heads=4, ratio=4, classes=5, T=4)
    reference = transcription.Spikformer(**published, **small, neuron=make_neuron).to(getattr(torch, dtype))
    hand_over(model, reference)
    return model, reference


def hand_over(model, reference):
    """Copy our weights and statistics into the reference; only its unused entries may be left."""
    layout = "cifar" if hasattr(reference.block[0].attn, "q_linear") else "dvs"
    state = {name: torch.tensor(array) for name, array in to_official(model, layout).items()}
    left = reference.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    unused = "norm", "num_batches_tracked", "pos_embed"
    assert all(any(name in key for name in unused) for key in left.missing_keys)


def batch(rng, model, static, n=3, dtype="float64"):
    """One batch for both: channels last, and channels first."""
    lead = (n,) if static else (4, n)
    x = rng.standard_normal((*lead, *model.img_size, model.in_channels)).astype(dtype)
    return x, torch.tensor(np.moveaxis(x, -1, -3).copy()), rng.integers(0, 5, n)


def gradients_agree(model, reference, tol):
    theirs = dict(reference.named_parameters())
    found = load_map(model)
    worst = 0.0
    for name, path in found.items():
        mine = dict(model.named_parameters())[path].grad
        other = to_ours(theirs[name].grad.numpy())
        size = abs(other).max()
        gap = abs(mine - other).max()
        worst = max(worst, gap)
        assert gap <= tol * max(1, size), f"{path}: gradient apart by {gap:.3e}, largest {size:.3e}"
    return worst


def load_map(model):
    """Return {the authors' name: our path} of every parameter."""
    report = load_official(to_official(model), model)
    paths = {path for path, _ in model.named_parameters()}
    return {theirs: path for theirs, path in report.matched.items() if path in paths}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "make_neuron, dtype, tol",
    [
        (transcription.PlainLIF, "float64", 1e-9),
        (transcription.jelly_lif, "float64", 1e-9),
        (transcription.jelly_lif, "float32", 1e-4),
    ],
    ids=["plain-float64", "spikingjelly-float64", "spikingjelly-float32"],
)
def test_the_whole_network_and_every_gradient(rng, variant, training, make_neuron, dtype, tol):
    model, reference = pair(variant, dtype, make_neuron)
    x, xt, labels = batch(rng, model, VARIANTS[variant]["static"], dtype=dtype)
    if not training:
        for _ in range(20):
            model(x)  # running statistics settle, so that the network is alive in eval mode
        hand_over(model, reference)
    model.train(training), reference.train(training)
    logits, others = model(x), reference(xt)
    close(logits.data, others, tol, "logits")
    ops.softmax_cross_entropy(logits, labels, 0.1).backward()
    nn.functional.cross_entropy(others, torch.tensor(labels), label_smoothing=0.1).backward()
    worst = gradients_agree(model, reference, tol)
    assert abs(model.stem.stages[0].map.weight.grad).max() > 1e-3
    print(f"{variant}, {dtype}: gradients apart by at most {worst:.1e}")
    state = {key: to_ours(value.numpy()) for key, value in reference.state_dict().items()}
    for theirs, path in load_official(to_official(model), model).matched.items():
        if "running" in theirs:
            close(model.state_dict()[path], state[theirs], tol, path)


@pytest.mark.parametrize("variant", VARIANTS)
def test_twenty_training_steps(rng, variant):
    model, reference = pair(variant, "float64", transcription.PlainLIF)
    optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=0.06)
    used = [p for name, p in reference.named_parameters() if "norm" not in name and name != "pos_embed"]
    groups = [
        {"params": [p for p in used if p.ndim >= 2], "weight_decay": 0.06},
        {"params": [p for p in used if p.ndim < 2], "weight_decay": 0.0},
    ]
    other = torch.optim.AdamW(groups, lr=1e-3)
    losses = []
    for _ in range(20):
        x, xt, labels = batch(rng, model, VARIANTS[variant]["static"])
        optimizer.zero_grad(), other.zero_grad()
        loss = ops.softmax_cross_entropy(model(x), labels, 0.1)
        loss.backward()
        nn.functional.cross_entropy(reference(xt), torch.tensor(labels), label_smoothing=0.1).backward()
        optimizer.step(), other.step()
        losses.append(loss.item())
    theirs, parameters, worst = dict(reference.named_parameters()), dict(model.named_parameters()), 0.0
    for name, path in load_map(model).items():
        worst = max(worst, abs(parameters[path].data - to_ours(theirs[name].detach().numpy())).max())
    print(f"{variant}: after 20 steps parameters apart by at most {worst:.1e}")
    assert worst < 1e-8 and losses[-1] != losses[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_spikes_layer_by_layer_in_float32(rng, variant, monkeypatch):
    """Each of our bricks is fed the reference's own input: one flipped spike would become thousands later.

    In float32 two right sums differ in their last digits, so a membrane at the threshold may fall on either
    side; only there may a spike differ. Trained parameters are not compared in float32 for the same reason:
    after a few steps such flips have made them two runs, equally good.
    """
    calls = []

    def recording(brick):
        def wrapped(self, *args):
            y = brick(self, *args)
            calls.append((self, "".join(map(str, args[:-1])), args[-1], y))
            return y

        return wrapped

    for cls in (transcription.PatchEmbed, transcription.Sublayer):
        monkeypatch.setattr(cls, "brick", recording(cls.brick))
    model, reference = pair(variant, "float32", transcription.jelly_lif)
    x, xt, _ = batch(rng, model, VARIANTS[variant]["static"], n=16, dtype="float32")
    attention = []
    for block in reference.block:
        block.attn.attn_lif.register_forward_hook(lambda _, given, y: attention.append((given[0], y)))
    reference(xt)
    places = {id(module): path for path, module in reference.named_modules()}
    ours_by_place = {}
    for i, stage in enumerate(model.stem.stages):
        ours_by_place["patch_embed", f"proj{i or ''}"] = stage
    ours_by_place["patch_embed", "rpe"] = model.stem.rpe
    for i, block in enumerate(model.blocks):
        for name in ("q", "k", "v", "proj"):
            ours_by_place[f"block.{i}.attn", name] = getattr(block.mixer, name)
        for name in ("fc1", "fc2"):
            ours_by_place[f"block.{i}.mlp", name] = getattr(block.mlp, name)
    assert len(calls) == len(ours_by_place) == 5 + 2 * 6
    flipped = compared = 0
    for module, name, given, expected in calls:
        brick, membranes = ours_by_place[places[id(module)], name], []
        current = np.ascontiguousarray(np.moveaxis(given.detach().numpy(), 2, -1))
        with (
            plain(),
            trace(  # the readable op keeps H
                lambda f, *_, m=membranes: m.append(f.neurons.h) if isinstance(f, NormaliseAndFire) else None
            ),
        ):
            readable = brick(current).data
        spikes = brick(current).data
        assert (spikes != readable).mean() < 1e-3  # products and moments differ in their last digits
        differs = spikes != np.moveaxis(expected.detach().numpy(), 2, -1)
        h = membranes[0].reshape(spikes.shape)
        first = differs & (np.cumsum(differs, 0) == 1)  # a neuron's first difference; the reset carries it on
        assert (abs(h - 1)[first] <= 1e-5 * np.maximum(1, abs(h))[first]).all(), (places[id(module)], name)
        flipped, compared = flipped + int(differs.sum()), compared + spikes.size
    for (
        given,
        expected,
    ) in attention:  # its input is integers times a power of two: exact, so no spike may differ
        spikes = lif(given.detach().numpy(), v_threshold=0.5).data
        np.testing.assert_array_equal(spikes, expected.detach().numpy())
        compared += spikes.size
    assert len(attention) == 2
    print(f"{variant}: {flipped} of {compared:,} spikes differ, each where the membrane is at the threshold")
    assert flipped < 1e-4 * compared


# ---------------------------------------------------------------- files that torch itself has written


def test_files_written_by_torch_are_read(rng, tmp_path):
    import argparse
    import collections

    base = torch.tensor(rng.standard_normal((4, 6)), dtype=torch.float32)
    tree = {
        "epoch": 3,
        "args": argparse.Namespace(lr=5e-4, model="spikformer"),
        "state_dict": collections.OrderedDict(
            whole=base, transposed=base.t(), part=base[1:3, ::2], scalar=base[0, 0], empty=base[:0],
            parameter=nn.Parameter(base.clone()), expanded=base[:, :1].expand(4, 3),
            **{str(d).removeprefix("torch."): base.to(d) for d in (
                torch.float16, torch.float64, torch.bfloat16, torch.int64, torch.int32, torch.int16,
                torch.int8, torch.uint8, torch.bool)},
        ),
        "optimizer": torch.optim.AdamW([nn.Parameter(base.clone())]).state_dict(),
    }  # fmt: skip
    torch.save(tree, tmp_path / "checkpoint.pth.tar")
    back = read_torch(tmp_path / "checkpoint.pth.tar")
    assert back["epoch"] == 3 and back["args"].state == {"lr": 5e-4, "model": "spikformer"}
    assert back["optimizer"]["param_groups"][0]["params"] == [0]
    for name, value in tree["state_dict"].items():
        value = value.float() if value.dtype == torch.bfloat16 else value
        array = back["state_dict"][name]
        assert array.dtype.name == str(value.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(array, value.detach().numpy(), err_msg=name)
    assert np.shares_memory(back["state_dict"]["whole"], back["state_dict"]["part"])


def test_a_whole_state_dict_and_module_metadata(rng, tmp_path):
    model, reference = pair("cifar", "float32", transcription.PlainLIF)
    torch.save({"state_dict": nn.DataParallel(reference).state_dict()}, tmp_path / "x.pth")
    for parameter in model.parameters():
        parameter.data[...] = 0
    report = load_official(tmp_path / "x.pth", model)
    x, xt, _ = batch(rng, model, True, dtype="float32")
    close(model.eval()(x).data, reference.eval()(xt), 1e-4)
    assert all(name.startswith("module.") for name in report.matched)
    assert sum("norm" in name for name in report.ignored) == 2 * 4
