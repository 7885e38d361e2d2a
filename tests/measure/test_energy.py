"""Counts: fan-outs by probing, additions by loops and by an event machine, totals from the papers."""

import json

import numpy as np
import pytest

from data_utils.images.digits import load_digits
from lessons.common import train_on_digits
from lessons.event_machine import EventMachine
from minispike import Module, Spiking, create_model, no_grad, ops, to_device
from minispike.blocks import ssa
from minispike.files.checkpoint import save
from minispike.measure import viz
from minispike.measure.energy import COLUMNS, PARTS, PICOJOULES, Operations, count, entering, kind_of
from minispike.nn import DepthwiseConv2d
from minispike.ops import conv
from minispike.ops.matmul import MatMul, MatMulAdd
from minispike.ops.transform import Fourier, Wavelet
from minispike.runs.cli import main, random_input

from ..blocks.test_blocks import lively
from ..ops.test_ops import NO_PRODUCTS, functions

BOTH = "tokens and channels"

# ---------------------------------------------------------------- fan-out

CASES = [  # op, shapes of the inputs, constants, how many of the inputs may carry spikes
    (MatMulAdd, [(2, 3, 4), (4, 5)], {}, 1),
    (MatMul, [(2, 1, 3, 4), (5, 4, 2)], {}, 2),
    (MatMul, [(4, 4), (2, 4, 3)], {}, 2),
    (conv.Convolve2d, [(2, 5, 6, 2), (3, 3, 2, 3)], dict(stride=1, padding=1), 1),
    (conv.Convolve2d, [(1, 5, 6, 2), (2, 3, 2, 3)], dict(stride=2, padding=0), 1),
    (conv.Convolve2d, [(1, 7, 4, 1), (2, 2, 1, 3)], dict(stride=3, padding=1), 1),
    (conv.ConvolveDepthwise2d, [(2, 5, 4, 3), (3, 3, 3)], dict(stride=1, padding=1), 1),
    (conv.ConvolveDepthwise2d, [(1, 6, 5, 2), (5, 5, 2)], dict(stride=2, padding=2), 1),
    *[
        (Fourier, [(2, *size)], dict(axes=a), 1)
        for a in ("tokens", BOTH)
        for size in ((16, 6), (12, 8), (7, 3))
    ],
    *[
        (Wavelet, [(2, H * W, 3)], dict(grid=(H, W), family=family, levels=levels), 1)
        for family, H, W, levels in (
            ("haar", 4, 8, 2),
            ("db2", 4, 4, 1),
            ("bior1.3", 8, 8, 2),
            ("db2", 8, 6, 1),
        )
    ],
]


def probe(op, arrays, constants, i):
    """Move each value of input i by one and count the outputs that move."""

    def run(*arrays):
        f = op()
        f.xp = np
        return f.forward(*arrays, **constants)

    before, reached = run(*arrays), np.zeros(arrays[i].shape)
    for at in np.ndindex(*arrays[i].shape):
        moved = [a.copy() for a in arrays]
        moved[i][at] += 1
        reached[at] = (abs(run(*moved) - before) > 1e-9).sum()
    return reached


@pytest.mark.parametrize("op, shapes, constants, n", CASES)
def test_fan_out_is_where_a_value_goes(rng, op, shapes, constants, n):
    arrays = [rng.standard_normal(shape) * (rng.random(shape) < 0.7) for shape in shapes]  # with zeros
    fans = op.fan_out(*arrays, **constants)
    assert len(fans) == n
    for i, fan in enumerate(fans):
        lead = np.broadcast_shapes(arrays[i].shape, fan.shape)
        goes = np.broadcast_to(fan, lead)  # a value that is broadcast goes to as many places
        extra = tuple(k for k in range(len(lead)) if k < len(lead) - arrays[i].ndim)
        goes = goes.sum(extra)
        short = tuple(k for k, size in enumerate(arrays[i].shape) if size == 1 and goes.shape[k] > 1)
        assert np.array_equal(goes.sum(short, keepdims=True), probe(op, arrays, constants, i))


def test_every_contraction_is_probed():
    assert {case[0] for case in CASES} == {
        f for f in functions() if f.__name__ == f.name and f.name not in NO_PRODUCTS
    }


# ---------------------------------------------------------------- the papers' figures


def published(name, **overrides):
    """Count a model on one image of noise: dense MACs do not depend on it."""
    model = create_model(name, T=1, **overrides)
    return count(model, np.random.default_rng(0).standard_normal((1, *model.img_size, 3)).astype("float32"))


def test_the_dense_macs_are_the_papers():
    c = published("spikformer_4_384_cifar10")
    assert abs(c.macs() / 1e6 - 934.0) < 0.05 and abs(c.macs("stem") / 1e6 - 468.5) < 0.05
    assert abs(c.macs("mixer") / 1e6 - 4 * (37.75 + 3.146)) < 0.01
    assert abs(c.macs("mlp") / 1e6 - 4 * 75.5) < 0.02
    products = [row for row in c.rows if row.op == "MatMul"]
    assert len(products) == 8 and sum(row.paper_macs for row in products) == 4 * 2 * 64 * 64 * 384
    assert all(row.macs == 64 * 32 * 384 for row in products)  # the run took Q (KᵀV), half as dear
    free = published("attention_free_fft1d_4_384_cifar10", mixer="identity")
    for part, macs in (("stem", 468.5), ("mixer", 0), ("mlp", 4 * 75.5)):
        assert abs(free.macs(part) / 1e6 - macs) < 0.05
    assert abs(free.macs() / 1e6 - 770.5) < 0.05


def test_the_published_energies_follow_from_the_published_operations():
    """0.9 pJ · OPs, and conv1 T = 4 times as MACs, with 64 channels at every width, as the paper counts."""
    conv1 = 4 * 9 * 3 * 64 * 224**2
    for ops_published, millijoules in (
        (6.82e9, 7.734),
        (11.09e9, 11.577),
        (13.67e9, 13.899),
        (22.09e9, 21.477),
    ):
        assert abs(1e3 * Operations(ops_published, conv1).joules() - millijoules) < 0.001
    model = create_model("spikformer_8_384_imagenet", depth=1)
    (row, *_), T = published("spikformer_8_384_imagenet", depth=1).rows, model.T
    assert T == 4 and 64 * row.paper_macs == 48 * conv1 / T  # ours has D/8 channels


def test_the_column_of_the_paper_does_not_depend_on_the_order_of_the_run(monkeypatch, rng):
    model = lively(create_model("spikformer_1_64_digits", num_heads=8, dtype="float64"), rng)  # N = 16 > d
    x = rng.standard_normal((3, 8, 8, 1))
    ours = count(settled(model, x), x)
    monkeypatch.setattr(ssa, "attend", lambda q, k, v: (q @ k.transpose(0, 1, 2, 4, 3)) @ v)
    papers = count(model, x)
    rows = [[row for row in c.rows if row.op == "MatMul"] for c in (ours, papers)]
    assert [row.shapes[-1][-2:] for row in rows[0]] == [(8, 8), (16, 8)]
    assert [row.shapes[-1][-2:] for row in rows[1]] == [(16, 16), (16, 8)]
    for column in ("paper", "strict"):
        assert ours.total(column) == papers.total(column)
    assert all(a.paper == b.paper and a.paper.ac > 0 for a, b in zip(*rows, strict=True))
    assert ours.total("events") != papers.total("events")


# ---------------------------------------------------------------- by hand


class Watched(Module):
    """A mixer that calls `f`, a function or a module, and notes what entered."""

    def __init__(self, f):
        self.f, self.seen = f, []

    def forward(self, x):
        self.seen.append(x.data)
        return self.f(x)


def settled(model, x):
    """Let batch norm see x a few times, so that an untrained network fires."""
    for _ in range(30):
        model.train()(x)
    return model


def counted(mixer, rng):
    """Count a small model with this mixer; return the mixer's rows and the tokens that entered it."""
    model = create_model("spikformer_1_64_digits", embed_dim=8, num_heads=2, dtype="float64", T=2)
    x = rng.standard_normal((2, 8, 8, 1))
    settled(lively(model, rng), x)
    watched = model.blocks[0].mixer = Watched(mixer)
    rows = [row for row in count(model, x).rows if row.part == "mixer"]
    (tokens,) = watched.seen
    assert tokens.max() == 2 and tokens.min() == 0  # integers do occur
    return rows, tokens


def test_products_of_spikes_by_loops(rng):
    q, k, v = (rng.random((3, 2, 2, 16, 8)) < 0.4).astype(float)  # [T, B, N, d] each

    def mixer(x):  # the spikes as if they came from x
        return ((x * 0.0 + q) @ (x * 0.0 + k).transpose(0, 1, 3, 2)) @ (x * 0.0 + v)

    (first, second), _ = counted(mixer, rng)
    coincidences = additions = 0
    for t, b, i, j in np.ndindex(2, 2, 16, 16):
        score = sum(1 for c in range(8) if q[t, b, i, c] and k[t, b, j, c])
        coincidences += score
        additions += sum(1 for c in range(8) if score and v[t, b, j, c])
    assert first.events == Operations(ac=coincidences) and second.events == Operations(ac=additions)
    assert (first.kind, second.kind) == ("binary", "binary")  # v counts, the integers are what it adds
    assert first.active_share == q.mean() and second.active_share == v.mean()
    assert second.strict == second.paper == Operations(ac=v.mean() * 2 * 2 * 16 * 16 * 8)


def test_in_a_product_of_integers_the_one_that_adds_less_counts(rng):
    more = rng.integers(0, 7, (2, 2, 16, 8)).astype(float)
    rows, x = counted(lambda x: ((x * 0.0 + more) @ x.transpose(0, 1, 3, 2)) @ np.ones((16, 8)), rng)
    left = right = 0
    for t, b, i, j, c in np.ndindex(2, 2, 16, 16, 8):
        left += more[t, b, i, c] * (x[t, b, j, c] != 0)
        right += (more[t, b, i, c] != 0) * x[t, b, j, c]
    assert right < left and rows[0].kind == "integer" and rows[0].events == Operations(ac=right)
    share = (x != 0).mean()
    assert rows[0].active_share == share and rows[0].strict == Operations(mac=share * rows[0].macs)


class Aggregated(Module):
    """A block that energy.py does not know: Q (K_Aᵀ K_A), K_A sums of 2×2 tokens, and a depthwise conv."""

    def __init__(self, dim, rng):
        self.local = Spiking(DepthwiseConv2d(dim, rng=rng))

    def forward(self, x):
        T, B, N, D = x.shape
        k = x * 0.0 + (x.data > 0).astype(float)
        pooled = ops.avg_pool2d(k.reshape(T, B, 4, 4, D), 2) * 4.0  # [T, B, 2, 2, D], 0 … 4
        pooled = pooled.reshape(T, B, 1, 4, D)
        y = k.reshape(T, B, 1, N, D) @ (pooled.transpose(0, 1, 2, 4, 3) @ pooled)
        y = y.reshape(T, B, N, D)
        return y + self.local(k.reshape(T, B, 4, 4, D)).reshape(T, B, N, D)


def test_a_new_block_is_counted_without_being_known(rng):
    (pairs, picks, local), tokens = counted(Aggregated(8, rng), rng)
    k = (tokens > 0).astype(float)
    pooled = k.reshape(2, 2, 2, 2, 2, 2, 8).sum((3, 5)).reshape(2, 2, 4, 8)  # [T, B, n, D]
    m, additions = pooled.swapaxes(2, 3) @ pooled, [0, 0]
    for t, b, c, e in np.ndindex(2, 2, 8, 8):
        additions[0] += sum(pooled[t, b, n, c] * (pooled[t, b, n, e] != 0) for n in range(4))
        additions[1] += sum(k[t, b, n, c] * (m[t, b, c, e] != 0) for n in range(16))
    windows = np.array([2, 3, 3, 2])[:, None, None] * np.array([2, 3, 3, 2])[:, None]
    additions.append((k.reshape(2, 2, 4, 4, 8) * windows).sum())
    assert [row.events for row in (pairs, picks, local)] == [Operations(ac=n) for n in additions]
    assert pooled.max() > 1 and [row.kind for row in (pairs, picks, local)] == ["integer", "binary", "binary"]
    # as written, (Q K_Aᵀ) K_A: first Q's active share over N·n·D, then integers meet integers over N·n·D
    assert pairs.paper == pairs.strict == Operations(ac=k.mean() * 2 * 2 * 16 * 4 * 8)
    assert picks.paper_macs == 2 * 2 * 16 * 4 * 8 and picks.strict.mac > 0 == picks.strict.ac
    assert local.parameters == 9 * 8


# ---------------------------------------------------------------- fixed transforms, kinds, time, prices


@pytest.mark.parametrize("name, direct", [("haar", True), ("db2", True), ("fft1d", True), ("fft2d", False)])
def test_a_fixed_transform_spreads_its_spikes_or_goes_the_fast_way(rng, name, direct):
    model = create_model("attention_free_fft1d_1_64_digits", mixer=name, embed_dim=16, dtype="float64", T=2)
    x, seen = rng.standard_normal((2, 8, 8, 1)), []
    settled(lively(model, rng), x)
    map, transform = model.blocks[0].mixer.map, model.blocks[0].mixer.map.forward
    map.forward = lambda tokens: seen.append(tokens.data) or transform(tokens)
    (row,) = (row for row in count(model, x).rows if row.part == "mixer")
    tokens = seen[-1]  # [T, B, N, D]
    if name == "fft2d":
        matrix = ops.fourier(np.eye(256).reshape(256, 16, 16), BOTH).data.reshape(256, 256)
        additions = (tokens.reshape(-1, 256) @ (abs(matrix) > 1e-12)).sum()
    else:
        matrix = transform(np.eye(16)).data
        additions = ((abs(matrix) > 1e-12).astype(float) @ tokens).sum()
    assert row.kind == "integer" and row.parameters == 0
    assert row.events == (Operations(ac=additions) if direct else Operations(mac=row.macs))
    cheap = count(model, x, {"ac": 100.0, "mac": 0.1})  # where additions are dear nobody spreads
    assert next(row.events for row in cheap.rows if row.part == "mixer") == Operations(mac=row.macs)


def test_a_random_matrix_is_a_layer_of_weights(rng):
    model = create_model(
        "attention_free_fft1d_1_64_digits", mixer="random", embed_dim=16, dtype="float64", T=2
    )
    x = rng.standard_normal((2, 8, 8, 1))
    (row,) = (row for row in count(settled(lively(model, rng), x), x).rows if row.part == "mixer")
    assert row.parameters == 16 * 16 and row.kind == "integer" and row.events.mac == 0 < row.events.ac
    assert row.events.ac % 16 == 0  # a spike reaches all 16 tokens
    assert row.events.ac >= row.active_share * row.macs


def test_kinds():
    for values, kind in (
        ([0, 1], "binary"),
        ([0, 0], "binary"),
        ([0, 2], "integer"),
        ([-1, 0], "integer"),
        ([0.5, 1], "analog"),
    ):
        assert kind_of(np.array(values, "float32")) == kind


def test_a_static_image_is_charged_as_its_frames_but_computed_once(rng):
    x = rng.standard_normal((3, 8, 8, 1))
    model = settled(lively(create_model("spikformer_1_64_digits", embed_dim=16, dtype="float64"), rng), x)
    static, frames = count(model, x), count(model, np.repeat(x[None], 4, 0))
    assert (static.images, static.steps) == (frames.images, frames.steps) == (3, 4)
    for column in ("paper", "strict"):
        a, b = static.total(column), frames.total(column)
        assert a.mac == b.mac and abs(a.ac - b.ac) < 1e-6 * b.ac
    assert 4 * static.rows[0].events.mac == frames.rows[0].events.mac
    assert static.rows[0].paper == Operations(mac=4 * static.rows[0].macs) and static.rows[0].kind == "analog"
    counts = count(model, rng.poisson(0.3, (4, 3, 8, 8, 1)).astype(float)).rows[0]
    assert counts.kind == "integer" and counts.paper.mac == 0 < counts.paper.ac < counts.macs


def test_count_leaves_the_model_as_it_was_and_reads_as_numbers(rng):
    x = rng.standard_normal((2, 8, 8, 1))
    model = settled(lively(create_model("spikformer_1_64_digits", embed_dim=16, dtype="float64"), rng), x)
    before = {path: array.copy() for path, array in model.state_dict().items()}
    for training in (True, False):
        model.train(training)
        c = count(model, x)
        assert model.training is training
    assert all(np.array_equal(before[path], array) for path, array in model.state_dict().items())
    record = json.loads(json.dumps(c.as_dict()))
    assert len(record["rows"]) == len(c.rows) == 14 and record["totals"]["paper"]["joules"] == c.joules(
        "paper"
    )
    assert all(row.path in str(c) for row in c.rows)
    for column in COLUMNS:
        assert c.joules(column) == pytest.approx(sum(c.joules(column, part) for part in PARTS), rel=1e-12)
        assert count(model, x, {"ac": 1.8, "mac": 9.2}).joules(column) == pytest.approx(2 * c.joules(column))
    assert {row.part for row in c.rows} == set(PARTS) and PICOJOULES == {"ac": 0.9, "mac": 4.6}


@pytest.mark.parametrize("mixer", ["ssa", "fft2d", "wavelets", "random"])
def test_a_device_counts_as_the_host(rng, device, mixer):
    x, rows = rng.standard_normal((2, 8, 8, 1)), []
    for place in ("cpu", device):
        name, own = ("spikformer", {}) if mixer == "ssa" else ("attention_free_fft1d", dict(mixer=mixer))
        model = create_model(f"{name}_1_64_digits", embed_dim=16, dtype="float64", **own)
        settled(lively(model, np.random.default_rng(1)), x).to(place)
        rows.append([row.events for row in count(model, to_device(x, place)).rows])
    assert rows[0] == rows[1]


# ---------------------------------------------------------------- the event machine


@pytest.fixture(scope="module")
def trained():
    """A small Spikformer after four epochs on digits: it reads most of them, and every part of it fires."""
    models = {}
    for heads in (2, 8):  # N = 16 tokens: (Q Kᵀ) V at a head width of 16, Q (Kᵀ V) at 4
        models[heads] = create_model("spikformer_1_64_digits", embed_dim=32, num_heads=heads, T=2, rng=0)
    train_on_digits(models[2], epochs=4, progress=False)
    models[8].load_state_dict(models[2].state_dict())
    return models


@pytest.mark.parametrize("heads", [2, 8])
def test_an_event_machine_needs_exactly_the_counted_additions(trained, heads):
    model, (images, labels) = trained[heads].to(dtype="float64").eval(), load_digits()[1]
    machine, x = EventMachine(model), images[:10].astype("float64")
    logits = machine(x)
    with no_grad():
        expected = model(x).data
    assert abs(logits - expected).max() < 1e-10
    assert (logits.argmax(1) == labels[:10]).mean() >= (0.6 if heads == 2 else 0.1)  # trained with two
    spikes = viz.spikes_of(model, x)
    assert list(spikes) == list(machine.spikes)
    for path, fired in spikes.items():
        assert np.array_equal(fired, machine.spikes[path]) and fired.any(), path
    c = count(model, x)
    for path in {row.path for row in c.rows}:
        events = sum((row.events for row in c.rows if row.path == path), Operations())
        assert (events.ac, events.mac) == (machine.additions[path], machine.products[path]), path
    assert set(machine.products) == {"stem.stages.0.map"}  # nothing else is multiplied
    for row in c.rows:  # share · MACs is the same where each value is a spike that reaches every output
        if row.op == "MatMulAdd" and row.kind == "binary":
            assert row.paper.ac == pytest.approx(row.events.ac, rel=1e-12)
        if row.op == "Convolve2d" and row.kind == "binary":
            # borders: up to 7/16 of a 4×4 grid's taps
            assert row.paper.ac > row.events.ac > 0.6 * row.paper.ac


def test_the_event_machine_catches_a_fan_out_that_forgets_the_borders(trained, monkeypatch):
    model, (images, _) = trained[2].to(dtype="float64").eval(), load_digits()[1]
    machine, x = EventMachine(model), images[:2].astype("float64")
    machine(x)
    monkeypatch.setattr(
        conv.Convolve2d, "fan_out", staticmethod(lambda x, w, b=None, **_: ((w != 0).sum((0, 1, 3)),))
    )
    for row in count(model, x).rows:
        if row.op == "Convolve2d":
            assert row.events.ac + row.events.mac > machine.additions[row.path] + machine.products[row.path]


def test_the_event_machine_knows_one_kind_of_model():
    for model in (
        create_model("attention_free_haar_1_64_digits"),
        create_model("spikformer_1_64_digits", tau=3.0),
    ):
        with pytest.raises(ValueError, match="an EventMachine runs Spikformers with tau = 2"):
            EventMachine(model)


def test_in_float32_the_event_machine_differs_by_rounding(trained):
    model, (images, _) = trained[2].to(dtype="float32").eval(), load_digits()[1]
    machine, x = EventMachine(model), images[:10]
    logits, spikes = machine(x), viz.spikes_of(model, x)
    flips = sum((spikes[path] != fired).sum() for path, fired in machine.spikes.items())
    assert flips <= 20  # of 138,240; only a membrane at its threshold can
    with no_grad():
        assert np.array_equal(logits.argmax(1), model(x).data.argmax(1))


# ---------------------------------------------------------------- the command


def test_info_prints_a_table_json_and_a_figure(tmp_path, capsys):
    assert main(["info", "spikformer_1_64_digits", "--figure", str(tmp_path / "a.png")]) == 0
    printed, warned = capsys.readouterr()
    assert "blocks.0.mixer.q.map" in printed and "one random input, untrained weights" in printed
    assert (
        "96,258 parameters; dense, 1.8 M MACs a step" in printed
        and "say nothing about a trained model" in warned
    )
    assert (tmp_path / "a.png").stat().st_size > 10_000
    frames = random_input(create_model("spikformer_2_256_gesture"))
    assert frames.shape == (16, 1, 128, 128, 2) and kind_of(frames) == "integer"  # event counts
    save(create_model("attention_free_haar_1_64_digits"), tmp_path / "a.safetensors")
    assert main(["info", str(tmp_path / "a.safetensors"), "--data", "digits", "--json"]) == 0
    printed, warned = capsys.readouterr()
    assert json.loads(printed)["input"] == "360 real test images (digits)" and not warned


def test_info_says_what_is_wrong(tmp_path, capsys):
    for arguments, message in (
        (["spikformer_9"], "no model 'spikformer_9'"),
        ([str(tmp_path / "none.safetensors")], "no file"),
        (["spikformer_4_384_cifar10", "--data", "digits"], "expected images"),
    ):
        assert main(["info", *arguments]) == 1
        assert message in capsys.readouterr().err


def test_a_negative_count_adds_as_often_as_a_positive_one(rng):
    model = create_model("spikformer_1_64_digits", embed_dim=16, dtype="float64")
    frames = rng.integers(-2, 3, (4, 2, 8, 8, 1)).astype(float)
    signed, plain = (count(model, x).rows[0] for x in (frames, abs(frames)))
    assert signed.kind == "integer" and signed.events == plain.events and plain.events.ac > 0


def test_the_dense_macs_of_an_image_do_not_depend_on_how_many_there_are(rng):
    model = create_model("spikformer_1_64_digits", embed_dim=16, dtype="float64")
    one, three = (count(model, rng.standard_normal((n, 8, 8, 1))).macs() for n in (1, 3))
    assert one == three


def test_additions_and_not_the_rate_decide_between_equals():
    """6·1 additions if the left one counts, 2·1 + 1·0 if the right one does, though more of it is not 0."""
    left, right = np.array([[6.0, 0.0]]), np.array([[2.0], [1.0]])
    assert entering(MatMul(), [left, right], [0, 1]) == ("integer", 1.0, 2)


def test_a_product_of_spikes_is_additions_at_any_price(rng):
    model, x = create_model("spikformer_1_64_digits", dtype="float64"), rng.standard_normal((2, 8, 8, 1))
    settled(lively(model, rng), x)
    products = [row for row in count(model, x, {"ac": 100.0, "mac": 0.1}).rows if row.op == "MatMul"]
    assert len(products) == 2 and all(row.events.mac == 0 < row.events.ac for row in products)


def test_frames_bring_their_own_steps_to_the_count(rng):
    four, three = (create_model("spikformer_1_64_digits", embed_dim=16, dtype="float64", T=T) for T in (4, 3))
    frames = rng.standard_normal((3, 2, 8, 8, 1))
    c = count(four, frames)
    assert c.steps == 3 and c.macs() == count(three, frames[0]).macs()


def test_analog_values_are_charged_dense_though_some_are_0(rng):
    x = rng.standard_normal((2, 8, 8, 1)) * (rng.random((2, 8, 8, 1)) < 0.5)
    row = count(create_model("spikformer_1_64_digits", embed_dim=16, dtype="float64"), x).rows[0]
    assert row.kind == "analog" and row.active_share < 0.7 and row.events.mac < 0.7 * row.macs
    assert row.paper == row.strict == Operations(mac=4 * row.macs)
