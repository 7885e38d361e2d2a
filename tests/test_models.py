"""Whole models: parameter counts, gradients, the static shortcut, independence of samples, refusals."""

import re

import numpy as np
import pytest

from data_utils import load_digits
from minispike import Tensor, check_grads, create_model, evaluate, list_models, no_grad, ops, trace
from minispike.configs import DATA, MIXER_FIELDS, PREFIXES, Config, configuration
from minispike.files import checkpoint
from minispike.files.checkpoint import Zeros, load, load_all, save
from minispike.measure.energy import additions_per_image
from minispike.models import MIXERS, build_model
from minispike.nn import LIF
from minispike.runs.folder import read_table
from minispike.surrogate import ATan

from .blocks.test_blocks import lively

SMALL = dict(embed_dim=16, num_heads=4, mlp_ratio=2)
PARAMETERS = {
    "spikformer_1_64_digits": 96_258,
    "spikformer_1_64_pairs": 95_738,  # two classes, not ten: 96,258 − 8 · 65
    "spikformer_2_64_fashion": 163_906,
    "spikformer_4_384_cifar10": 9_324_730,
    "spikformer_4_256_cifar10": 4_155_178,
    "spikformer_2_384_cifar10": 5_765_050,
    "spikformer_8_384_imagenet": 16_816_024,
    "spikformer_8_512_imagenet": 29_689_384,
    "spikformer_10_512_imagenet": 36_005_416,
    "spikformer_8_768_imagenet": 66_338_632,
    "spikformer_2_256_cifar10dvs": 2_566_666,
    "spikformer_2_256_gesture": 2_566_923,
    "spikformer_2_64_fashion_dvs": 163_594,  # one channel more, no biases of q, k, v: 163,906 + 72 − 384
    "attention_free_fft1d_1_64_digits": 79_234,
    "attention_free_fft1d_1_64_pairs": 78_714,
    "attention_free_fft1d_2_64_fashion": 129_858,
    "attention_free_fft1d_4_384_cifar10": 6_950_074,
    "attention_free_fft1d_2_256_cifar10dvs": 2_038_794,
    "attention_free_fft1d_2_64_fashion_dvs": 129_930,
    "attention_free_fft2d_1_64_digits": 79_234,
    "attention_free_fft2d_1_64_pairs": 78_714,
    "attention_free_fft2d_2_64_fashion": 129_858,
    "attention_free_fft2d_4_384_cifar10": 6_950_074,
    "attention_free_fft2d_2_256_cifar10dvs": 2_038_794,
    "attention_free_fft2d_2_64_fashion_dvs": 129_930,
    "attention_free_haar_1_64_digits": 79_234,
    "attention_free_haar_1_64_pairs": 78_714,
    "attention_free_haar_2_64_fashion": 129_858,
    "attention_free_haar_4_384_cifar10": 6_950_074,
    "attention_free_haar_2_256_cifar10dvs": 2_038_794,
    "attention_free_haar_2_64_fashion_dvs": 129_930,
    "attention_free_wavelets_1_64_digits": 79_234 + 3,
    "attention_free_wavelets_1_64_pairs": 78_714 + 3,
    "attention_free_wavelets_2_64_fashion": 129_858 + 2 * 3,
    "attention_free_wavelets_4_384_cifar10": 6_950_074 + 4 * 3,  # three bases in each of four blocks
    "attention_free_wavelets_2_256_cifar10dvs": 2_038_794 + 2 * 3,
    "attention_free_wavelets_2_64_fashion_dvs": 129_930 + 2 * 3,
    "attention_free_identity_1_64_digits": 79_234,
    "attention_free_identity_1_64_pairs": 78_714,
    "attention_free_identity_2_64_fashion": 129_858,
    "attention_free_identity_4_384_cifar10": 6_950_074,
    "attention_free_identity_2_256_cifar10dvs": 2_038_794,
    "attention_free_identity_2_64_fashion_dvs": 129_930,
    "attention_free_random_1_64_digits": 79_234,
    "attention_free_random_1_64_pairs": 78_714,
    "attention_free_random_2_64_fashion": 129_858,
    "attention_free_random_4_384_cifar10": 6_950_074,
    "attention_free_random_2_256_cifar10dvs": 2_038_794,
    "attention_free_random_2_64_fashion_dvs": 129_930,
    "attention_free_static_1_64_pairs": 82_810,  # and a matrix of 64×64 tokens
    "attention_free_maxpool_1_64_pairs": 78_714,
    "attention_free_depthwise_1_64_pairs": 79_290,
    "attention_free_softmax_1_64_pairs": 95_354,
    "spikformer_v2_1_64_digits": 451_506,
    "spikformer_v2_2_64_fashion": 519_114,
    "spikformer_v2_8_384_imagenet": 29_111_272,
    "spikformer_v2_8_512_imagenet": 51_545_064,
    "spikformer_v2_16_768_imagenet": 172_278_760,
    "saformer_1_64_digits": 92_674,  # 96,258 − V's 4,288 + 704 of the depthwise convolution and its BN
    "saformer_1_64_pairs": 92_154,
    "saformer_2_64_fashion": 156_738,
    "saformer_4_384_cifar10": 8_747_194,
    "saformer_4_384_cifar100": 8_781_844,
    "saformer_4_384_tinyimagenet": 8_820_344,
    "saformer_2_256_cifar10dvs": 2_440_202,
    "saformer_2_256_gesture": 2_440_459,
    "saformer_2_64_fashion_dvs": 156_554,
}


def small(rng, dtype="float64", **overrides):
    model = create_model("spikformer_1_64_digits", rng=rng, dtype=dtype, **SMALL | overrides)
    return lively(model, np.random.default_rng(rng))


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_the_published_ones(name):
    weights = Zeros(2 * PARAMETERS[name])  # the system gives zeros only when they are touched
    assert build_model(configuration(name, dtype="float64"), rng=weights).num_params() == PARAMETERS[name]


def test_every_listed_model_has_its_count_checked():
    assert list_models() == list(PARAMETERS)


@pytest.mark.parametrize(
    "name, shape, tokens",
    [
        ("spikformer_4_256_cifar10", (1, 32, 32, 3), (4, 1, 64, 256)),
        ("spikformer_2_256_cifar10dvs", (2, 1, 128, 128, 2), (2, 1, 64, 256)),
        ("spikformer_8_384_imagenet", (1, 224, 224, 3), (1, 1, 196, 384)),
    ],
)
def test_published_sizes_give_the_published_tokens(rng, name, shape, tokens):
    model, seen = create_model(name, T=tokens[0], depth=1).eval(), []
    inner = model.stem.forward
    model.stem.forward = lambda *a, **k: seen.append(inner(*a, **k)) or seen[0]
    with no_grad():
        logits = model(rng.standard_normal(shape).astype("float32"))
    assert seen[0].shape == tokens and logits.shape == (1, model.head.out_channels)


def test_each_published_configuration_is_as_documented():
    for name, scale, heads, bias in [
        ("spikformer_4_384_cifar10", 0.125, 12, True),
        ("spikformer_4_256_cifar10", 0.125, 8, True),
        ("spikformer_8_384_imagenet", 0.125, 8, False),
        ("spikformer_8_512_imagenet", 0.125, 8, False),
        ("spikformer_8_768_imagenet", 0.125, 12, False),
        ("spikformer_2_256_cifar10dvs", 0.25, 16, False),
        ("spikformer_2_64_fashion_dvs", 0.25, 4, False),
    ]:
        mixer = create_model(name, depth=1).blocks[0].mixer
        assert (mixer.scale, mixer.num_heads, mixer.q.map.bias is not None) == (scale, heads, bias)
        assert mixer.proj.map.bias is not None and mixer.attention.v_threshold == 0.5


def dense_macs(name):
    """Multiply-accumulates of one image and step, in millions, by class of op and part of the model."""
    model, found = create_model(name, T=1).eval(), {}

    def look(function, inputs, output, path):
        if hasattr(function, "cost"):
            shapes = (x.shape for x in inputs if isinstance(x, Tensor))
            key = function.name, path.split(".")[0]
            found[key] = found.get(key, 0) + function.cost(*shapes, **function.constants) / 1e6

    with no_grad(), trace(look):
        model(np.zeros((1, *model.img_size, model.in_channels), "float32"))
    return found


def test_the_costs_add_up_to_the_papers_multiply_accumulates():
    macs = dense_macs("spikformer_4_384_cifar10")
    products = macs[
        "MatMul", "blocks"
    ]  # Q (KᵀV): at N = 64, d = 32 half of the (QKᵀ) V that the paper counts
    assert abs(2 * products - 4 * 3.15) < 0.02 and abs(sum(macs.values()) + products - 934.0) < 0.05
    assert abs(macs["Convolve2d", "stem"] - 468.5) < 0.05
    assert abs(macs["MatMulAdd", "blocks"] - 4 * (37.7 + 75.5)) < 0.3
    free = dense_macs("attention_free_fft1d_4_384_cifar10")
    assert abs(sum(free.values()) - free["Fourier", "blocks"] - 770.5) < 0.05


@pytest.mark.slow
def test_gradients_through_a_whole_model(rng):
    model = small(rng, smooth=True, detach_reset=False)
    x, labels = rng.standard_normal((3, 8, 8, 1)), np.array([1, 5, 7])
    check_grads(lambda x: ops.softmax_cross_entropy(model(x), labels, 0.1), x, *model.parameters())
    frames = rng.standard_normal((4, 2, 8, 8, 1))
    check_grads(model, frames, *model.parameters())
    check_grads(model.eval(), frames, *model.parameters())


def test_a_static_image_equals_its_repetition(rng):
    a, b = small(0), small(0)
    x = rng.standard_normal((3, 8, 8, 1))
    for model, images in [(a, x), (b, np.repeat(x[None], 4, 0))]:
        for _ in range(2):
            lossy = ops.softmax_cross_entropy(model(images), np.array([1, 2, 3]))
        lossy.backward()
    for (path, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, q.grad, rtol=1e-8, atol=1e-10, err_msg=path)
    for path, array in a.state_dict().items():
        np.testing.assert_allclose(array, b.state_dict()[path], rtol=1e-12, atol=1e-14, err_msg=path)
    np.testing.assert_allclose(a.eval()(x).data, b.eval()(np.repeat(x[None], 4, 0)).data, rtol=1e-12)


def test_T_is_the_number_of_times_that_a_static_image_is_shown(rng):
    x = rng.standard_normal((2, 8, 8, 1))
    outputs = [small(0, T=T).eval()(x).data for T in (1, 2, 4)]
    assert abs(outputs[0] - outputs[1]).max() > 1e-3 and abs(outputs[1] - outputs[2]).max() > 1e-3
    frames = small(0, T=4).eval()(np.repeat(x[None], 2, 0)).data  # frames bring their own T
    np.testing.assert_allclose(frames, outputs[1], rtol=1e-12)


def test_a_sample_does_not_depend_on_its_neighbours_or_on_the_batch(rng):
    model = small(rng)
    frames = rng.standard_normal((4, 6, 8, 8, 1))
    for _ in range(3):
        model(frames)
    model.eval()
    together = model(frames).data
    with no_grad():
        for b in range(6):
            np.testing.assert_allclose(model(frames[:, b : b + 1]).data[0], together[b], rtol=0, atol=1e-12)
        other = frames.copy()
        other[:, 1:] = rng.standard_normal((4, 5, 8, 8, 1))
        np.testing.assert_allclose(model(other).data[0], together[0], rtol=0, atol=1e-12)
        order = rng.permutation(6)
        np.testing.assert_allclose(model(frames[:, order]).data, together[order], rtol=0, atol=1e-12)
    assert abs(together[0] - together[1]).max() > 1e-3


def test_time_runs_along_the_first_axis_alone(rng):
    """What comes at step t does not reach back: tokens before t are untouched, tokens from t on are not."""
    model, frames = small(rng), rng.standard_normal((4, 2, 8, 8, 1))
    for _ in range(30):
        model(frames)  # running statistics settle
    model.eval()
    later = frames.copy()
    later[2] = rng.standard_normal((2, 8, 8, 1))
    a, b = (model.blocks[0](model.stem(Tensor(x))).data for x in (frames, later))
    assert np.array_equal(a[:2], b[:2])
    assert not np.array_equal(a[2], b[2]) and not np.array_equal(a[3], b[3])  # the membrane remembers


def test_the_same_seed_gives_the_same_weights():
    states = [create_model("spikformer_1_64_digits", rng=seed).state_dict() for seed in (3, 3, 4)]
    assert all(np.array_equal(states[0][path], states[1][path]) for path in states[0])
    assert not np.array_equal(states[0]["head.weight"], states[2]["head.weight"])
    generator = create_model("spikformer_1_64_digits", rng=np.random.default_rng(3)).state_dict()
    assert np.array_equal(generator["head.weight"], states[0]["head.weight"])
    double = create_model("spikformer_1_64_digits", rng=3, dtype="float64").state_dict()
    assert np.array_equal(double["head.weight"].astype("float32"), states[0]["head.weight"])


@pytest.mark.parametrize(
    "override",
    [
        dict(T=2), dict(scale=0.5), dict(num_heads=2), dict(tau=3.0), dict(v_threshold=1.5),
        dict(v_reset=None), dict(smooth=True), dict(pools=(True, False, False, False)),
    ],
    ids=str,
)  # fmt: skip
def test_every_override_changes_the_output(rng, override):
    x = rng.standard_normal((2, 8, 8, 1))
    assert abs(small(0, **override)(x).data - small(0)(x).data).max() > 1e-6


@pytest.mark.parametrize("override", [dict(surrogate=ATan()), dict(detach_reset=False)], ids=str)
def test_what_only_backward_knows_changes_the_gradient(rng, override):
    x, grads = rng.standard_normal((2, 8, 8, 1)), []
    for options in ({}, override):
        model = small(0, **options)
        model(x).sum().backward()
        grads.append(model.stem.stages[1].map.weight.grad)
    assert abs(grads[0] - grads[1]).max() > 1e-9


def test_sizes_can_be_overridden(rng):
    model = create_model(
        "spikformer_1_64_digits",
        **SMALL,
        depth=2,
        img_size=(4, 12),
        in_channels=2,
        num_classes=3,
        qkv_bias=False,
    )
    assert len(model.blocks) == 2 and model.blocks[0].mixer.q.map.bias is None
    assert model.blocks[0].mlp.fc1.map.out_channels == 32
    assert model(rng.standard_normal((2, 4, 12, 2)).astype("float32")).shape == (2, 3)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "shape, message",
    [
        ((8, 8, 1), r"SpikingTransformer: expected images \[B, 8, 8, 1\] or frames .* got \[8, 8, 1\]"),
        ((2, 8, 8, 3), r"expected images \[B, 8, 8, 1\] .* got \[2, 8, 8, 3\]"),
        ((2, 9, 8, 1), r"got \[2, 9, 8, 1\]"),
        ((1, 2, 3, 8, 8, 1), r"got \[1, 2, 3, 8, 8, 1\]"),
        ((0, 8, 8, 1), r"got \[0, 8, 8, 1\]"),
        ((0, 2, 8, 8, 1), r"got \[0, 2, 8, 8, 1\]"),
    ],
)
def test_images_of_another_shape_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        create_model("spikformer_1_64_digits")(np.zeros(shape, "float32"))


def test_images_of_another_kind_are_refused():
    model, x = create_model("spikformer_1_64_digits"), np.zeros((2, 8, 8, 1))
    with pytest.raises(
        TypeError, match="SpikingTransformer: a Tensor holds float32 or float64, got uint8 of shape"
    ):
        model(x.astype("uint8"))
    with pytest.raises(TypeError, match=r"SpikingTransformer: x is float64, the parameters float32: convert"):
        model(x)
    for bad in (np.nan, np.inf):
        x[1, 2, 3, 0] = bad
        with pytest.raises(ValueError, match=r"SpikingTransformer: x \[2, 8, 8, 1\] holds NaN or Inf"):
            model(x.astype("float32"))


@pytest.mark.parametrize(
    "options, error, message",
    [
        (dict(num_heads=5), ValueError, "SSA cannot split dim = 64 into 5 heads"),
        (dict(embed_dim=60), ValueError, "dim divisible by 8"),
        (dict(tau=1.0), ValueError, "tau > 1, got 1.0"),
        (dict(T=0), ValueError, r"whole numbers, from 1 on \(depth: from 0\), got T = 0$"),
        (dict(T=1.5, num_classes=0), ValueError, r"got T = 1.5, num_classes = 0$"),
        (dict(depth=-1), ValueError, "got depth = -1$"),
        (dict(mlp_ratio=0), ValueError, r"embed_dim · mlp_ratio must be a whole number, .* mlp_ratio = 0$"),
        (dict(mlp_ratio="4"), ValueError, "got mlp_ratio = '4'$"),
        (dict(T="4"), ValueError, r"got T = '4'$"),
        (dict(T=True), ValueError, r"got T = True$"),
        (dict(num_heads=0), ValueError, r"got num_heads = 0$"),
        (dict(T=float("nan"), depth=float("inf")), ValueError, r"got T = nan, depth = inf$"),
        (dict(img_size=0), ValueError, r"img_size must be a side or \(height, width\), .* got 0$"),
        (dict(img_size=-8), ValueError, r"img_size must be .* got -8$"),
        (dict(img_size=(8, 8, 1)), ValueError, r"img_size must be .* got \(8, 8, 1\)$"),
        (dict(img_size="8"), ValueError, r"img_size must be .* got '8'$"),
        (
            dict(img_size=9),
            ValueError,
            r"divisible by 2 \(halvings in the stem: 1\), got 9",
        ),
        (dict(img_size=(8, 5)), ValueError, r"img_size must be divisible by 2 .* got \(8, 5\)$"),
        (dict(tau="2"), ValueError, "tau must be a number, got '2'"),
        (dict(tau=float("nan")), ValueError, "tau > 1, got nan"),
        (dict(v_threshold=None), ValueError, "v_threshold must be a number, got None"),
        (dict(surrogate="atan"), ValueError, "surrogate must be one of minispike.surrogate, got 'atan'"),
        (dict(depht=2), TypeError, "has no depht; it takes .*depth"),
        (dict(neuron=3), TypeError, "has no neuron"),
        (dict(dtype="float16"), ValueError, "dtype must be 'float32' or 'float64', got 'float16'"),
    ],
)
def test_bad_configurations_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        create_model("spikformer_1_64_digits", **options)


def test_wavelets_that_do_not_fit_are_refused_before_the_first_image():
    with pytest.raises(ValueError, match="no discrete wavelet family 'fft3d'"):
        create_model("attention_free_haar_1_64_digits", mixer="fft3d")
    with pytest.raises(ValueError, match="wavelet with 5 levels needs a grid divisible by 32, got 4×4"):
        create_model("attention_free_haar_1_64_digits", levels=5)


def test_numpys_numbers_are_numbers(rng, tmp_path):
    """As of a sweep over np.linspace: they are settings, and no buffers to be saved."""
    numbers = dict(tau=np.linspace(1.5, 2.5, 3)[1], v_threshold=np.float32(0.75), T=np.int64(2))
    model = create_model("spikformer_1_64_digits", **numbers, embed_dim=16)
    plain = create_model("spikformer_1_64_digits", tau=2.0, v_threshold=0.75, T=2, embed_dim=16)
    assert model.state_dict().keys() == plain.state_dict().keys()
    save(model, tmp_path / "x.safetensors")
    x = rng.standard_normal((2, 8, 8, 1)).astype("float32")
    assert np.array_equal(load(tmp_path / "x.safetensors")(x).data, plain(x).data)
    layer = LIF(tau=np.float64(3.0))  # by hand, too
    assert not layer.state_dict()


def test_an_unknown_name_suggests_near_ones():
    with pytest.raises(
        ValueError, match="no model 'spikformer_4_384_cifar'; nearest: spikformer_4_384_cifar10"
    ):
        create_model("spikformer_4_384_cifar")


def test_a_state_of_another_model_is_refused_by_name():
    model, other = (
        create_model("spikformer_1_64_digits"),
        create_model("spikformer_1_64_digits", num_classes=7),
    )
    with pytest.raises(
        ValueError, match=r"head.weight is \[64, 7\], expected \[64, 10\]; head.bias is \[7\]"
    ):
        model.load_state_dict(other.state_dict())


def test_mixers_get_the_grid_as_rows_and_columns():
    for name in ("attention_free_haar_1_64_digits", "saformer_1_64_digits"):
        mixer = create_model(name, img_size=(8, 16), embed_dim=16).blocks[0].mixer
        assert (mixer.map if name.startswith("attention") else mixer.dwc).grid == (4, 8)


def test_a_broken_mlp_ratio_counts_whole_channels():
    assert create_model("spikformer_1_64_digits", mlp_ratio=2.5).blocks[0].mlp.fc1.map.out_channels == 160


# ---------------------------------------------------------------- names and mixers


def test_a_name_is_family_depth_width_data():
    for name in list_models():
        config = configuration(name)
        prefix, depth, width, data = re.fullmatch(r"(\w+?)_(\d+)_(\d+)_(\w+)", name).groups()
        assert (config.depth, config.embed_dim) == (int(depth), int(width)) and prefix in PREFIXES
        assert config.num_classes == DATA[data]["num_classes"]


def test_every_mixer_says_which_fields_it_uses():
    assert MIXERS.keys() == MIXER_FIELDS.keys()


@pytest.mark.parametrize("mixer", [*MIXERS, "haar"])
def test_a_model_takes_any_mixer_by_its_name(rng, mixer):
    heads = {"num_heads": 4} if mixer in ("ssa", "sasa") else {}
    model = create_model("spikformer_1_64_digits", mixer=mixer, embed_dim=16, dtype="float64", **heads)
    assert model(rng.standard_normal((2, 8, 8, 1))).shape == (2, 10)
    assert model.config.mixer == mixer and model.config.stem == "sps"


@pytest.mark.parametrize(
    "mixer, field", [("fft1d", "num_heads"), ("ssa", "dwc"), ("sasa", "levels"), ("db2", "r")]
)
def test_a_field_that_the_mixer_does_not_use_is_refused(mixer, field):
    with pytest.raises(TypeError, match=f"has no {field}; it takes img_size"):
        create_model("spikformer_1_64_digits", mixer=mixer, **{field: 2})


@pytest.mark.parametrize(
    "family, config",
    [
        ("spikformer", dict(stem="sps", mixer="ssa")),
        ("attention_free_spikformer", dict(stem="sps", mixer="ssa")),  # the file names its mixer
        ("spikformer_v2", dict(stem="scs", mixer="ssa")),
        ("saformer", dict(stem="sps", mixer="sasa")),
    ],
)
def test_a_family_of_an_older_file_is_read(family, config):
    found = dict(img_size=8, in_channels=1, num_classes=10, pools=[False] * 4, embed_dim=16, depth=1)
    read = Config.from_dict({"family": family, **found})
    assert read == Config(**found | {"pools": (False,) * 4}, **config)
    assert Config.from_dict({"family": family, "stem": "scs", "mixer": "haar", **found}).mixer == "haar"


# ---------------------------------------------------------------- trained weights


def test_a_trained_model_knows_the_unseen_digits():
    images, labels = load_digits()[1]
    model = create_model("spikformer_1_64_digits", pretrained=True)
    assert evaluate(model, [(images, labels)])[1] >= 0.975
    assert evaluate(create_model("spikformer_1_64_digits", pretrained=True, T=2), [(images, labels)])[1] > 0.9
    double = create_model("spikformer_1_64_digits", pretrained=True, dtype="float64", detach_reset=False)
    np.testing.assert_array_equal(double.head.weight.data, model.head.weight.data.astype("float64"))
    assert double.T == 4 and not double.blocks[0].mixer.attention.detach_reset


def test_a_model_trained_with_a_price_adds_a_third(rng):
    images, labels = load_digits()[1]
    models = [create_model("spikformer_1_64_digits", pretrained=which) for which in (True, "sparse")]
    usual, few = (additions_per_image(model, images, 90) for model in models)
    assert few < 0.35 * usual and evaluate(models[1], [(images, labels)])[1] >= 0.975
    with pytest.raises(ValueError, match="pretrained must be True, False or 'sparse', got 'few'"):
        create_model("spikformer_1_64_digits", pretrained="few")


def test_beside_trained_weights_stands_the_log_of_their_training():
    files = sorted(checkpoint.WEIGHTS.glob("*.safetensors"))
    assert len(files) >= 2
    for path in files:
        rows = read_table(path.with_suffix(".metrics.csv"))
        assert {"loss", "accuracy", "lr", "additions", "test_accuracy"} <= rows[-1].keys()
        assert rows[-1]["test_accuracy"] == load_all(path).training["test_accuracy"]


def test_trained_weights_fix_everything_else(monkeypatch, tmp_path):
    with pytest.raises(
        ValueError, match="trained weights fix depth, tau; .* you may change dtype, T, smooth"
    ):
        create_model("spikformer_1_64_digits", pretrained=True, depth=2, tau=3.0)
    with pytest.raises(FileNotFoundError, match="there are weights of spikformer_1_64_digits"):
        create_model("saformer_1_64_digits", pretrained=True)
    monkeypatch.setattr(checkpoint, "WEIGHTS", tmp_path / "weights")
    with pytest.raises(FileNotFoundError, match="weights/ comes with a clone of the repository"):
        create_model("spikformer_1_64_digits", pretrained=True)
