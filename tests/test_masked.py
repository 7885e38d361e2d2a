"""Spikformer V2: the stem against its loops; masking that leaves no trace; the decoder; pre-training."""

import numpy as np
import pytest

from minispike import BatchNorm, Conv2d, Spiking, Tensor, check_grads, create_model, no_grad, to_device
from minispike.blocks.decoder import LayerNorm, PlainBlock, gelu, positions, softmax
from minispike.blocks.scs import SCS
from minispike.files.checkpoint import load, load_encoder, save
from minispike.masked import (
    MaskedAutoencoder,
    masked_autoencoder,
    patch_moments,
    patchify,
    pretrain,
    random_visible,
    unpatchify,
)
from minispike.optim import AdamW, layer_scales
from minispike.visible import Visible

from .blocks.test_blocks import SMOOTH, lively, naive_neuron, naive_norm

SMALL = dict(embed_dim=16, num_heads=4, mlp_ratio=2)
HALVES = [(False, True, False, False), (True, False, True, False)]


def naive_conv(x, conv):
    """Any kernel, stride and padding, one output position at a time: x [T, B, H, W, C]."""
    w, s, pad = conv.weight.data, conv.stride, conv.padding
    k = len(w)
    x = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad), (0, 0)])
    H, W = ((n - k) // s + 1 for n in x.shape[2:4])
    y = np.zeros((*x.shape[:2], H, W, w.shape[-1]))
    for p, q in np.ndindex(H, W):
        y[:, :, p, q] = np.tensordot(x[:, :, p * s : p * s + k, q * s : q * s + k], w, 3)
    return y


def naive_brick(x, brick, visible=None):
    """LIF(BN(conv)), with BN and neurons over the visible positions [B, H, W] alone."""
    y = naive_conv(x, brick.map)
    where = np.ones(y.shape[1:4], bool) if visible is None else visible
    rows = np.stack([step[where] for step in y])  # [T, M, C]
    out = np.zeros_like(y)
    for step, spikes in zip(out, naive_neuron(naive_norm(rows, brick.norm)), strict=True):
        step[where] = spikes
    return out


def at(visible, y_side):
    """A token mask [B, h, w] at the resolution of a grid of y_side×y_side."""
    f = y_side // visible.shape[1]
    return visible.repeat(f, 1).repeat(f, 2)


def autoencoder(rng=0, mask_ratio=0.5, dtype="float64", **overrides):
    options = SMALL | dict(mask_ratio=mask_ratio, decoder_dim=16, dtype=dtype) | overrides
    model = masked_autoencoder("spikformer_v2_1_64_digits", **options)
    return lively(model, np.random.default_rng(rng))


def settle(model, *inputs):
    """Let running statistics be those of one batch."""
    for norm in (m for _, m in model.named_modules() if isinstance(m, BatchNorm)):
        norm.momentum = 1.0
    model(*inputs)
    return model


# ---------------------------------------------------------------- SCS


@pytest.mark.parametrize("halves", HALVES)
def test_scs_is_its_equation(rng, halves):
    scs = lively(SCS(2, 16, halves, rng=rng), rng)
    frames = rng.standard_normal((3, 2, 8, 8, 2))
    x = frames
    for stage in scs.stages:
        x = naive_brick(x, stage.down)
        x = x + naive_brick(naive_brick(x, stage.expand), stage.contract)
    tokens = scs(frames).data
    side = 8 // 2 ** sum(halves)
    np.testing.assert_array_equal(tokens, x.reshape(3, 2, side * side, 16))
    assert set(np.unique(tokens)) == {0, 1, 2}


@pytest.mark.parametrize("halves", HALVES)
def test_gradients_through_scs(rng, halves):
    scs = lively(SCS(2, 8, halves, neuron=SMOOTH, rng=rng), rng, gain=1.5)
    check_grads(scs, rng.standard_normal((3, 2, 4, 4, 2)), *scs.parameters())
    check_grads(lambda x: scs(x, T=3), rng.standard_normal((1, 2, 4, 4, 2)), *scs.parameters())


def test_a_static_image_equals_its_repetition(rng):
    scs = lively(SCS(1, 8, HALVES[0], rng=rng), rng)
    image = rng.standard_normal((1, 2, 8, 8, 1))
    np.testing.assert_array_equal(scs(image, T=3).data, scs(np.repeat(image, 3, 0)).data)


def test_the_stem_of_every_family_can_be_exchanged(rng):
    for name in ("spikformer_1_64_digits", "saformer_1_64_digits", "attention_free_haar_1_64_digits"):
        model = create_model(name, stem="scs", embed_dim=16)
        assert isinstance(model.stem, SCS)
        assert model(rng.standard_normal((2, 8, 8, 1)).astype("float32")).shape == (2, 10)
    with pytest.raises(ValueError, match="stem must be one of sps, scs, got 'vit'"):
        create_model("spikformer_1_64_digits", stem="vit")


@pytest.mark.parametrize("T", [1, 4])
@pytest.mark.parametrize("side, tokens", [(28, 49), (32, 64)])
def test_the_small_model_takes_fashion_sized_images(rng, side, tokens, T):
    model = create_model("spikformer_v2_2_64_fashion", img_size=side, T=T, depth=1, embed_dim=16)
    x = rng.standard_normal((1, 1, side, side, 1)).astype("float32")
    with no_grad():
        assert model.stem(x, T=T).shape == (T, 1, tokens, 16) and model.eval()(x[0]).shape == (1, 10)


def test_scs_refuses_what_does_not_fit(rng):
    with pytest.raises(ValueError, match="SCS needs dim divisible by 8 and 4 stages, got 12"):
        SCS(1, 12, HALVES[0], rng=rng)
    scs = SCS(1, 8, (True, True, False, False), rng=rng)
    with pytest.raises(
        ValueError, match=r"stages.1 \(Stage\): this stage halves the grid, which is 3×3: odd"
    ):
        scs(rng.standard_normal((1, 1, 6, 6, 1)))


# ---------------------------------------------------------------- the masked brick


def test_a_masked_brick_sees_the_visible_positions_alone(rng):
    """Normalised by their statistics, silent elsewhere; running statistics count them, T times."""
    visible = random_visible(3, (2, 2), 2, rng)
    brick = lively(Spiking(Conv2d(2, 6, rng=rng)), rng)
    x = Visible(visible).hide(rng.standard_normal((1, 3, 4, 4, 2))).data
    y = Visible(visible).through(brick, x, T=4).data
    where = at(visible, 4)
    np.testing.assert_array_equal(y, naive_brick(np.repeat(x, 4, 0), brick, where))
    assert not y[:, ~where].any() and 0.05 < y[:, where].mean() < 0.95
    rows = naive_conv(x, brick.map)[0][where]
    n = 4 * len(rows)
    np.testing.assert_allclose(brick.norm.running_mean, 0.1 * rows.mean(0))
    np.testing.assert_allclose(brick.norm.running_var, 0.9 + 0.1 * rows.var(0) * n / (n - 1))


@pytest.mark.parametrize("T", [1, 3])
def test_gradients_through_a_masked_brick(rng, T):
    visible = Visible(random_visible(3, (2, 2), 1, rng))
    brick = lively(Spiking(Conv2d(2, 6, rng=rng), SMOOTH()), rng, gain=1.0)
    x = rng.standard_normal((1, 3, 4, 4, 2))
    check_grads(lambda x: visible.through(brick, x, T=T), x, *brick.parameters())


def test_masking_after_the_map_alone_would_leak(rng):
    """The control: a zero that goes through BN is β − γμ/σ, and where that exceeds the threshold it fires."""
    visible = random_visible(3, (2, 2), 2, rng)
    brick = Spiking(Conv2d(2, 6, rng=rng))
    brick.norm.bias.data[...] = 3.0
    x = Visible(visible).hide(rng.standard_normal((1, 3, 4, 4, 2))).data
    where = at(visible, 4)
    leaking = brick.neuron(brick.norm(brick.map(x) * where[..., None].astype(float))).data
    assert leaking[:, ~where].any() and not Visible(visible).through(brick, x).data[:, ~where].any()


def test_all_visible_is_the_plain_model(rng):
    model = create_model("spikformer_v2_1_64_digits", dtype="float64", **SMALL)
    lively(model, rng)
    x = rng.standard_normal((1, 3, 8, 8, 1))
    everything = Visible(np.ones((3, 4, 4), bool))
    for _ in range(2):
        a, b = model.stem(x, T=4), model.stem(x, T=4, visible=everything)
        np.testing.assert_array_equal(a.data, b.data)
        model.eval()
    with no_grad():
        np.testing.assert_array_equal(model.stem(x, T=4).data, model.stem(x, T=4, visible=everything).data)


# ---------------------------------------------------------------- no leakage


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("mode", ["train", "eval", "eval without gradients"])
def test_what_lies_under_the_mask_leaves_no_trace(rng, mode, smooth, monkeypatch):
    """Stem activations there are exactly zero, and other pixels change nothing, bit for bit."""
    model = autoencoder(smooth=smooth)
    visible = random_visible(4, model.grid, model.n_visible, rng)
    images = rng.standard_normal((4, 8, 8, 1))
    settle(model, images, visible)
    model.train(mode == "train")
    hidden = ~at(visible, 8)
    other = images.copy()
    other[hidden] = 100 * rng.standard_normal((hidden.sum(), 1))
    through, seen = Visible.through, []
    monkeypatch.setattr(Visible, "through", lambda *a, **k: seen.append(through(*a, **k)) or seen[-1])

    def outputs():
        seen.clear()
        encoded = model.encode(images, Visible(visible)).data, model.encode(other, Visible(visible)).data
        return *encoded, [tensor.data for tensor in seen]

    if mode == "eval without gradients":
        with no_grad():
            one, two, activations = outputs()
    else:
        one, two, activations = outputs()
    assert one.shape == (4, 4, 8, 16) and np.array_equal(one, two)
    assert len(activations) == 24 and all(a.any() for a in activations)
    for a in activations:
        assert not a[:, ~at(visible, a.shape[2])].any()
    shown = images.copy()
    shown[~hidden] += 1.0  # the control: visible pixels do matter
    assert not np.array_equal(model.encode(shown, Visible(visible)).data, one)


# ---------------------------------------------------------------- patches, masks


@pytest.mark.parametrize("shape, patch", [((2, 8, 8, 1), 2), ((3, 12, 8, 3), 4)])
def test_patches_are_cut_and_put_back_exactly(rng, shape, patch):
    images = rng.standard_normal(shape)
    patches = patchify(images, patch)
    assert np.array_equal(unpatchify(patches, shape[1:3], patch), images)
    columns = shape[2] // patch
    for n in range(patches.shape[1]):
        row, column = divmod(n, columns)
        cell = images[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
        np.testing.assert_array_equal(patches[:, n], cell.reshape(shape[0], -1))
    mean, deviation = patch_moments(patches)
    np.testing.assert_allclose(mean[..., 0], patches.mean(-1))
    np.testing.assert_allclose(deviation[..., 0], np.sqrt(patches.var(-1, ddof=1) + 1e-6))


def test_every_sample_has_its_own_mask_of_the_same_size():
    visible = random_visible(200, (4, 4), 5, np.random.default_rng(0))
    assert visible.dtype == bool and (visible.sum((1, 2)) == 5).all()
    assert len({v.tobytes() for v in visible}) > 150
    assert abs(visible.mean(0) - 5 / 16).max() < 0.15  # every place alike
    again = random_visible(200, (4, 4), 5, np.random.default_rng(0))
    assert np.array_equal(visible, again)


@pytest.mark.parametrize("ratio, n_visible", [(0.5, 8), (0.75, 4), (0.6, 6)])
def test_the_scale_of_ssa_grows_as_tokens_go(ratio, n_visible):
    model = autoencoder(mask_ratio=ratio)
    assert model.n_visible == n_visible
    assert all(block.mixer.scale == 0.125 * 16 / n_visible for block in model.blocks)


@pytest.mark.parametrize("ratio", [0, 1, -0.5, 1.5, 0.01, 0.99])
def test_a_mask_hides_some_and_not_all(ratio):
    with pytest.raises(
        ValueError, match=f"mask_ratio {ratio} of 16 patches leaves -?\\d+ visible: some must"
    ):
        autoencoder(mask_ratio=ratio)


def test_masks_and_models_that_do_not_fit_are_refused(rng):
    with pytest.raises(
        ValueError, match=r"img_size must be divisible by 4 \(halvings in the stem: 2\), got 10"
    ):
        autoencoder(img_size=10, pools=(True, True, False, False))
    with pytest.raises(ValueError, match="images of 6×8 do not divide into patches of 4×4"):
        patchify(np.zeros((1, 6, 8, 1)), 4)
    with pytest.raises(ValueError, match="needs the stem 'scs'"):
        masked_autoencoder("spikformer_1_64_digits")
    with pytest.raises(ValueError, match="needs SSA as mixer"):
        masked_autoencoder("saformer_1_64_digits", stem="scs")
    with pytest.raises(ValueError, match="equally many visible tokens, at least one"):
        Visible(np.zeros((2, 4, 4), bool))
    with pytest.raises(ValueError, match="equally many visible tokens"):
        Visible(np.array([[[True, False]], [[True, True]]]))
    with pytest.raises(ValueError, match="a mask of 2×2 tokens does not fit a grid of 3×3"):
        Visible(np.ones((1, 2, 2), bool)).rows(3, 3)
    with pytest.raises(ValueError, match="a mask of 2 samples does not fit a batch of 3"):
        Visible(np.ones((2, 2, 2), bool)).take(np.zeros((1, 3, 4, 4, 1)))
    model = autoencoder()
    with pytest.raises(ValueError, match=r"MaskedAutoencoder: expected images \[B, 8, 8, 1\]"):
        model(np.zeros((2, 8, 8, 3)), random_visible(2, (4, 4), 8, rng))
    with pytest.raises(ValueError, match=r"takes images \[B, H, W, C\], got frames \[4, 2, 8, 8, 1\]"):
        model.encode(np.zeros((4, 2, 8, 8, 1)), Visible(random_visible(2, (4, 4), 8, rng)))
    x, visible = np.zeros((2, 8, 8, 1)), random_visible(2, (4, 4), 8, rng)
    for use in (model, model.reconstruct):
        with pytest.raises(ValueError, match=r"a mask is a bool array \[B, h, w\], got uint8\[2, 4, 4\]"):
            use(x, visible.astype("uint8"))
        for other in (random_visible(2, (4, 4), 2, rng), random_visible(2, (2, 4), 4, rng)):
            with pytest.raises(
                ValueError, match="the mask must show 8 of 4×4 tokens, as many as SSA's scale"
            ):
                use(x, other)


# ---------------------------------------------------------------- decoder


def test_the_plain_block_is_its_equation(rng):
    block = PlainBlock(8, 2, rng=rng)
    for parameter in block.parameters():
        parameter.data += 0.3 * rng.standard_normal(parameter.shape)
    x = rng.standard_normal((2, 5, 8))

    def norm(x, layer):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * layer.weight.data + layer.bias.data

    def linear(x, layer):
        return x @ layer.weight.data + layer.bias.data

    y, normed = x.copy(), norm(x, block.norm1)
    q, k, v = (linear(normed, f) for f in (block.q, block.k, block.v))
    out = np.zeros_like(x)
    for b, head, i in np.ndindex(2, 2, 5):
        part = slice(4 * head, 4 * head + 4)
        weights = np.exp([q[b, i, part] @ k[b, j, part] / 2 for j in range(5)])
        out[b, i, part] = weights @ v[b, :, part] / weights.sum()
    y += linear(out, block.proj)
    h = linear(norm(y, block.norm2), block.fc1)
    h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
    np.testing.assert_allclose(block(x).data, y + linear(h, block.fc2), rtol=1e-10, atol=1e-12)
    check_grads(block, x, *block.parameters())


def test_plain_pieces(rng):
    x = rng.standard_normal((3, 4))
    check_grads(softmax, x)
    check_grads(gelu, x)
    assert np.isfinite(softmax(Tensor(x * 1e4)).data).all()
    norm = LayerNorm(4)
    np.testing.assert_allclose(norm(x).data.std(-1), 1, rtol=1e-4)
    with pytest.raises(ValueError, match="PlainBlock cannot split dim = 6 into 4 heads"):
        PlainBlock(6, 4, rng=rng)
    with pytest.raises(ValueError, match="dim divisible by 4, got 6"):
        positions((2, 2), 6)


def test_every_place_has_its_own_position():
    table = positions((3, 5), 16)
    assert table.shape == (15, 16) and len(np.unique(table.round(9), axis=0)) == 15
    assert np.array_equal(table[0, :8], table[4, :8]) and np.array_equal(table[0, 8:], table[5, 8:])
    np.testing.assert_allclose(table[:, :4] ** 2 + table[:, 4:8] ** 2, 1)  # sin² + cos²


def test_the_mask_token_and_the_positions_are_used(rng):
    model = autoencoder()
    visible = random_visible(2, model.grid, model.n_visible, rng)
    images, shown = rng.standard_normal((2, 8, 8, 1)), Visible(visible)
    tokens = model.encode(images, shown)
    before = model.decode(tokens, shown).data
    model.mask_token.data += rng.standard_normal(16)
    changed = model.decode(tokens, shown).data
    assert abs(changed - before).max() > 1e-6
    model.positions[...] = 0
    assert abs(model.decode(tokens, shown).data - changed).max() > 1e-6


# ---------------------------------------------------------------- the loss


def test_the_loss_is_over_masked_patches_alone(rng):
    model = autoencoder()
    visible = random_visible(3, model.grid, model.n_visible, rng)
    images = rng.standard_normal((3, 8, 8, 1))
    shown = Visible(visible)
    predicted = model.decode(model.encode(images, shown), shown).data
    total = n = 0
    for b, token in np.ndindex(3, 16):
        row, column = divmod(token, 4)
        if not visible[b, row, column]:
            patch = images[b, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2, 0].ravel()
            target = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
            total, n = total + ((predicted[b, token] - target) ** 2).sum(), n + 4
    assert n == 3 * 8 * 4
    np.testing.assert_allclose(model(images, visible).item(), total / n, rtol=1e-12)


def test_a_reconstruction_keeps_what_is_visible(rng):
    model = autoencoder()
    visible = random_visible(3, model.grid, model.n_visible, rng)
    images = rng.standard_normal((3, 8, 8, 1))
    out = model.reconstruct(images, visible)
    shown = at(visible, 8)
    assert np.array_equal(out[shown], images[shown]) and (out[~shown] != images[~shown]).all()


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_gradients_through_the_whole_pre_training_loss(rng, ratio):
    """In the parameters: the target depends on the image too, and is a constant."""
    model = autoencoder(mask_ratio=ratio, smooth=True, detach_reset=False, embed_dim=8, T=2, decoder_depth=1)
    visible = random_visible(2, model.grid, model.n_visible, rng)
    images = rng.standard_normal((2, 8, 8, 1))
    check_grads(lambda *_: model(images, visible), *model.parameters())
    check_grads(lambda x: model.decode(model.encode(x, Visible(visible)), Visible(visible)), images)


def test_pre_training_runs_on_a_device_as_on_the_host(rng, device):
    visible = random_visible(2, (4, 4), 8, rng)
    images, results = rng.standard_normal((2, 8, 8, 1)), []
    for where in ("cpu", device):
        model = autoencoder().to(where)
        loss = model(to_device(images, where), to_device(visible, where))
        loss.backward()
        grads = [model.mask_token.grad, model.stem.stages[0].down.map.weight.grad]
        results.append([to_device(a, "cpu") for a in (loss.data, *grads)])
    for host, there in zip(*results, strict=True):
        np.testing.assert_allclose(there, host, rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- pre-training and fine-tuning


def batches_of(images, size=4):
    return lambda epoch: [(images[i : i + size], None) for i in range(0, len(images), size)]


@pytest.mark.slow
def test_pre_training_learns_and_repeats_itself(rng):
    images = rng.standard_normal((8, 1, 1, 1)) * np.ones((8, 8, 8, 1)) + np.linspace(0, 1, 8)[:, None]
    losses = []
    for seed in (5, 5, 6):
        model = autoencoder(dtype="float32", T=1, decoder_depth=1)
        optimizer = AdamW(model.parameters(), lr=3e-3)
        history = pretrain(
            model, optimizer, batches_of(images.astype("float32")), rng=seed, epochs=6, progress=False
        )
        losses.append([record["loss"] for record in history])
    assert losses[0][-1] < 0.7 * losses[0][0]
    assert losses[0] == losses[1] != losses[2]
    assert set(history[0]) == {"epoch", "lr", "loss", "seconds"}


@pytest.mark.parametrize(
    "odd", [dict(label_smoothing=0.1), dict(calibration=2), dict(test=[]), dict(objective=print)], ids=str
)
def test_what_pre_training_cannot_do_is_refused_at_once(odd):
    with pytest.raises(ValueError, match=f"pretrain has no {next(iter(odd))}"):
        pretrain(None, None, None, rng=0, epochs=1, **odd)


def test_the_encoder_moves_into_a_classifier_by_name(rng, tmp_path):
    model = autoencoder(dtype="float32")
    images = rng.standard_normal((4, 8, 8, 1)).astype("float32")
    settle(model, images, random_visible(4, model.grid, model.n_visible, rng))
    save(model, tmp_path / "pretrained.safetensors")
    again = load(tmp_path / "pretrained.safetensors")
    assert isinstance(again, MaskedAutoencoder) and again.config == model.config
    for source in (model, tmp_path / "pretrained.safetensors", str(tmp_path / "pretrained.safetensors")):
        classifier = create_model("spikformer_v2_1_64_digits", num_classes=7, **SMALL)
        head = classifier.head.weight.data.copy()
        load_encoder(classifier, source)
        state, theirs = classifier.state_dict(), model.state_dict()
        moved = [path for path in state if not path.startswith("head.")]
        assert len(moved) == len(state) - 2 and all(np.array_equal(state[p], theirs[p]) for p in moved)
        assert np.array_equal(classifier.head.weight.data, head)
        assert classifier.blocks[0].mixer.scale == 0.125  # all tokens are there again
    with pytest.raises(ValueError, match="unexpected blocks.0"):
        load_encoder(create_model("spikformer_v2_1_64_digits", **SMALL | dict(depth=0)), model)


def test_learning_rates_fall_towards_the_image(rng):
    model = create_model(
        "spikformer_v2_1_64_digits", depth=2, **{k: SMALL[k] for k in ("embed_dim", "num_heads")}
    )
    scales = dict(zip((path for path, _ in model.named_parameters()), layer_scales(model, 0.5), strict=True))
    assert scales["head.weight"] == 1 and scales["blocks.1.mlp.fc1.map.weight"] == 0.5
    assert scales["blocks.0.mixer.q.map.bias"] == 0.25 and scales["stem.stages.3.down.norm.weight"] == 0.125
    before = {path: p.data.copy() for path, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = np.ones_like(p.data)
    AdamW(model.parameters(), lr=1e-2, weight_decay=0, lr_scales=list(scales.values())).step()
    for path, p in model.named_parameters():
        np.testing.assert_allclose(before[path] - p.data, 1e-2 * scales[path], rtol=1e-3, err_msg=path)


def test_scs_refuses_an_odd_width(rng):
    scs = SCS(1, 8, (True, True, False, False), rng=rng)
    with pytest.raises(ValueError, match=r"this stage halves the grid, which is 4×3: odd"):
        scs(rng.standard_normal((1, 1, 8, 6, 1)))


def test_a_mask_need_not_be_square(rng):
    model = autoencoder(img_size=(8, 12))
    assert model.grid == (4, 6)
    visible = random_visible(2, model.grid, model.n_visible, rng)
    images = rng.standard_normal((2, 8, 12, 1))
    other = np.where(at(visible, 8)[..., None], images, 9.0)
    assert np.isfinite(model(images, visible).item())
    one, two = (model.encode(x, Visible(visible)).data for x in (images, other))
    assert np.array_equal(one, two) and one.any()
    with pytest.raises(ValueError, match="a mask of 2×2 tokens does not fit a grid of 4×3"):
        Visible(np.ones((1, 2, 2), bool)).rows(4, 3)


def test_positions_are_sines_and_cosines_of_row_and_column():
    table = positions((3, 5), 16)
    for n, i in np.ndindex(15, 4):
        row, column = np.array(divmod(n, 5)) * 10_000 ** (-i / 4)
        expected = [np.sin(row), np.cos(row), np.sin(column), np.cos(column)]
        np.testing.assert_allclose(table[n, i::4], expected, atol=1e-12)


def test_the_encoder_is_the_stem_and_then_its_blocks(rng):
    model, images = autoencoder(depth=2), rng.standard_normal((3, 8, 8, 1))
    shown = Visible(random_visible(3, model.grid, model.n_visible, rng))
    x = stem = model.stem(images[None], T=4, visible=shown)
    for block in model.blocks:
        x = block(x)
    assert np.array_equal(model.encode(images, shown).data, x.data) and not np.array_equal(x.data, stem.data)


def test_the_decoder_is_its_equation(rng):
    model = autoencoder()
    for parameter in (model.mask_token, *model.norm.parameters()):
        parameter.data[...] = rng.standard_normal(parameter.shape)
    visible = random_visible(2, model.grid, model.n_visible, rng)
    tokens, x = rng.integers(0, 5, (4, 2, 8, 16)).astype(float), np.zeros((2, 16, 16))
    for b in range(2):
        x[b] = model.mask_token.data
        for i, n in enumerate(np.flatnonzero(visible[b])):  # a visible token stands in its place
            x[b, n] = tokens[:, b, i].mean(0) @ model.embed.weight.data + model.embed.bias.data
    x += positions((4, 4), 16)
    for block in model.decoder:
        x = block(x).data
    x = model.norm(x).data @ model.to_pixels.weight.data + model.to_pixels.bias.data
    np.testing.assert_allclose(model.decode(Tensor(tokens), Visible(visible)).data, x, atol=1e-12)
    narrow = masked_autoencoder("spikformer_v2_1_64_digits", decoder_dim=16, decoder_heads=2)
    assert [block.num_heads for block in narrow.decoder] == [2, 2]


def test_a_perfect_decoder_reconstructs_the_image(rng):
    model, images = autoencoder(), 5 + 3 * rng.standard_normal((3, 8, 8, 1))
    patches = patchify(images, 2)
    mean, deviation = patch_moments(patches)
    model.decode = lambda *_: Tensor((patches - mean) / deviation)
    visible = random_visible(3, model.grid, model.n_visible, rng)
    np.testing.assert_allclose(model.reconstruct(images, visible), images, rtol=1e-12)


def test_pre_training_brings_images_and_masks_to_the_models_device(rng, device):
    images, losses = rng.standard_normal((4, 8, 8, 1)), []
    for where in ("cpu", device):
        model = autoencoder(T=1, decoder_depth=1).to(where)
        (record,) = pretrain(
            model, AdamW(model.parameters()), batches_of(images), rng=0, epochs=1, progress=False
        )
        losses.append(record["loss"])
    assert abs(losses[0] - losses[1]) < 1e-9


def test_learning_rates_fall_by_a_quarter_unless_told():
    model = create_model("spikformer_v2_1_64_digits", **SMALL)
    assert set(layer_scales(model)) == {1, 0.75, 0.75**2}
