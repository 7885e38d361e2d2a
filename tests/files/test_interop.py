"""The authors' checkpoints: names, layouts, and the command that imports them."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minispike import create_model
from minispike.files.checkpoint import load
from minispike.files.interop import Report, find_state_dict, load_official, to_official
from minispike.files.torchfile import FileFormatError
from minispike.runs.cli import main

from .common import SMALL, damage, fuzz, same, small, small_once
from .torch_writer import MARKER, PAYLOADS, Call, Name, tensor, write_torch

THEIRS = {
    "patch_embed.proj_conv.weight": (2, 1, 3, 3),
    "patch_embed.proj_conv3.weight": (16, 8, 3, 3),
    "patch_embed.proj_bn1.running_var": (4,),
    "patch_embed.rpe_conv.weight": (16, 16, 3, 3),
    "patch_embed.rpe_bn.bias": (16,),
    "block.1.attn.proj_bn.weight": (16,),
    "block.1.mlp.fc1_bn.running_mean": (32,),
    "head.weight": (10, 16),
    "head.bias": (10,),
}
LINEAR = {
    "cifar": {"block.0.attn.q_linear.weight": (16, 16), "block.0.mlp.fc1_linear.weight": (32, 16)},
    "dvs": {"block.0.attn.q_conv.weight": (16, 16, 1), "block.0.mlp.fc1_conv.weight": (32, 16, 1)},
    "imagenet": {"block.0.attn.q_conv.weight": (16, 16, 1), "block.0.mlp.fc1_conv.weight": (32, 16, 1, 1)},
}


@pytest.mark.parametrize("layout", LINEAR)
def test_the_round_trip_through_the_authors_layout_is_exact(layout):
    model, other = small(), small()
    for parameter in other.parameters():
        parameter.data[...] = 0
    theirs = to_official(model, layout)
    assert {name: theirs[name].shape for name in THEIRS} == THEIRS
    assert {name: theirs[name].shape for name in LINEAR[layout]} == LINEAR[layout]
    assert len(theirs) == len(model.state_dict())
    report = load_official(theirs, other)
    assert same(model, other) and set(report.matched) == set(theirs) and not report.ignored


def test_the_layout_follows_from_the_model():
    assert "block.0.attn.q_linear.bias" in to_official(small())
    assert to_official(small(qkv_bias=False))["block.0.mlp.fc1_conv.weight"].ndim == 4
    assert to_official(small(qkv_bias=False, in_channels=2))["block.0.mlp.fc1_conv.weight"].ndim == 3
    with pytest.raises(ValueError, match="layout must be one of cifar, dvs, imagenet, got 'mnist'"):
        to_official(small(), "mnist")


def test_weights_arrive_where_they_belong():
    model = small()
    theirs = to_official(model)
    w = np.arange(32 * 16.0).reshape(32, 16)
    theirs["block.1.mlp.fc1_linear.weight"] = w
    k = np.arange(2 * 9.0).reshape(2, 1, 3, 3)
    theirs["patch_embed.proj_conv.weight"] = k
    load_official(theirs, model)
    np.testing.assert_array_equal(model.blocks[1].mlp.fc1.map.weight.data, w.T)
    np.testing.assert_array_equal(model.stem.stages[0].map.weight.data[1, 2, 0], k[:, 0, 1, 2])


def test_blocks_from_the_tenth_on_have_two_digits():
    model, other = small(depth=11), small(depth=11)
    for parameter in other.parameters():
        parameter.data[...] = 0
    theirs = to_official(model) | {"block.10.norm1.weight": np.ones(16)}
    assert "block.10.attn.q_linear.weight" in theirs
    assert load_official(theirs, other).ignored == ["block.10.norm1.weight"] and same(model, other)


def test_prefixes_unused_layers_and_counters_are_passed_over():
    model = small()
    theirs = {f"module.{name}": array for name, array in to_official(model).items()}
    extra = ["block.0.norm1.weight", "block.1.norm2.bias", "patch_embed.proj_bn.num_batches_tracked"]
    extra += ["norm.weight", "norm.bias", "pos_embed"]  # of the code for events
    theirs |= {name: np.ones(1) for name in extra}
    report = load_official({"epoch": 3, "state_dict": theirs, "args": object()}, model)
    assert report.ignored == extra and len(report.matched) == len(model.state_dict())
    text = str(report)
    assert f"{len(report.matched)} entries matched, 6 ignored" in text
    assert "module.head.bias" in text and "→ head.bias" in text and str(Report()).startswith("0 entries")


def test_what_is_missing_left_over_or_misshapen_is_named_and_nothing_is_written():
    model, theirs = small(), to_official(small())
    before = {path: array.copy() for path, array in model.state_dict().items()}
    wrong = dict(theirs)
    del wrong["head.bias"]
    wrong["patch_embed.proj_conv9.weight"] = np.ones(2)
    with pytest.raises(ValueError, match="missing head.bias; unexpected patch_embed.proj_conv9.weight"):
        load_official(wrong, model)
    with pytest.raises(ValueError, match=r"head.weight is \[16, 7\], expected \[16, 10\]"):
        load_official(theirs | {"head.weight": np.ones((7, 16))}, model)
    with pytest.raises(
        ValueError, match="missing block.1.attn.q_linear.weight.*missing block.1.mlp.fc2_bn.running_var"
    ):
        load_official({k: v for k, v in theirs.items() if "block.1" not in k}, model)
    with pytest.raises(ValueError, match="head.bias is a str, not a dense array of real numbers"):
        load_official(theirs | {"head.bias": "text"}, model)
    assert all(np.array_equal(before[path], array) for path, array in model.state_dict().items())


def test_a_checkpoint_without_weights_says_what_it_holds():
    with pytest.raises(FileFormatError, match="no state_dict in this checkpoint; it holds: epoch, arch"):
        find_state_dict({"epoch": 1, "arch": "x"})
    with pytest.raises(FileFormatError, match="it holds: list"):
        find_state_dict([1, 2])


def test_checkpoints_under_the_key_model_are_found():
    assert find_state_dict({"epoch": 1, "model": {"w": np.ones(2)}})["w"].tolist() == [1, 1]
    assert find_state_dict({"state_dict": {"model": {"w": np.ones(2)}}})["w"].tolist() == [1, 1]


# ---------------------------------------------------------------- files of every kind


@pytest.mark.parametrize("kind", ["pth", "npz", "safetensors"])
def test_official_weights_are_loaded_from_every_kind_of_file(tmp_path, kind, capsys):
    model = small()
    theirs, path = to_official(model), tmp_path / f"official.{kind}"
    if kind == "pth":
        write_torch(path, {"state_dict": {n: tensor(a, str(i)) for i, (n, a) in enumerate(theirs.items())}})
    elif kind == "npz":
        np.savez(path, **theirs)
    else:
        from safetensors.numpy import save_file

        save_file(theirs, path)
    other = create_model("spikformer_1_64_digits", rng=5, **SMALL)
    load_official(path, other)
    assert same(model, other)


def test_an_authors_checkpoint_with_a_payload_beside_its_weights_is_loaded_and_harmless(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    model = small()
    theirs = {name: tensor(array, str(i)) for i, (name, array) in enumerate(to_official(model).items())}
    call = Call(Name("posix", "system"), f"touch {MARKER}")
    write_torch(tmp_path / "x.pth", {"args": call, "state_dict": theirs})
    load_official(tmp_path / "x.pth", small())
    assert os.listdir(tmp_path) == ["x.pth"]


def test_a_pickle_in_an_npz_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("evil.npz", w=np.array([PAYLOADS["os.system"]], object))
    with pytest.raises(FileFormatError, match=r"evil.npz: .*it holds: w \(a pickled array of objects\)"):
        load_official(tmp_path / "evil.npz", small_once())
    assert os.listdir(tmp_path) == ["evil.npz"]


def test_a_compressed_npz_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", w=np.zeros(10**6))
    with pytest.raises(FileFormatError, match="bomb.npz: unpacked it is larger: use savez"):
        load_official(tmp_path / "bomb.npz", small_once())


@fuzz
@given(st.data())
def test_a_damaged_pth_gives_the_readers_own_error(tmp_path, data):
    whole = tmp_path / "whole.pth"
    if not whole.exists():
        arrays = {"w": np.arange(6, dtype="f4").reshape(2, 3), "n": np.array(3), "b": np.ones(4, "f2")}
        write_torch(whole, {"state_dict": {k: tensor(a, k) for k, a in arrays.items()}, "epoch": 1})
    path = tmp_path / "damaged.pth"
    path.write_bytes(damage(whole.read_bytes(), data))
    try:
        load_official(path, small_once())
    except (FileFormatError, ValueError) as error:  # ValueError: read, but no Spikformer
        assert type(error) is FileFormatError or "does not fit" in str(error)


@fuzz
@given(st.data())
def test_a_damaged_npz_gives_the_readers_own_error(tmp_path, data):
    whole = tmp_path / "whole.npz"
    if not whole.exists():
        np.savez(whole, w=np.arange(6.0), b=np.ones((2, 2), "f4"))
    path = tmp_path / "damaged.npz"
    path.write_bytes(damage(whole.read_bytes(), data))
    try:
        load_official(path, small_once())
    except (FileFormatError, ValueError) as error:
        assert type(error) is FileFormatError or "does not fit" in str(error)


# ---------------------------------------------------------------- the command line


def test_import_from_the_command_line(tmp_path, capsys):
    model = create_model("spikformer_1_64_digits", rng=4)
    theirs = to_official(model)
    write_torch(tmp_path / "a.pth.tar", {n: tensor(a, str(i)) for i, (n, a) in enumerate(theirs.items())})
    out = tmp_path / "model.safetensors"
    assert (
        main(["import", str(tmp_path / "a.pth.tar"), "--model", "spikformer_1_64_digits", "--out", str(out)])
        == 0
    )
    printed = capsys.readouterr().out
    assert f"{len(theirs)} entries matched" in printed and "96,258 parameters written to" in printed
    assert same(load(out), model)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--model", "spikformer_1_64_digits"], "no state_dict|no file"),
        (["--model", "spikformer_9"], "no model 'spikformer_9'"),
        (["--model", "spikformer_1_64_digits", "--num-classes", "3"], "no file"),
    ],
)
def test_a_failed_import_says_why_and_writes_nothing(tmp_path, capsys, arguments, message):
    assert main(["import", str(tmp_path / "none.pth"), *arguments, "--out", str(tmp_path / "out")]) == 1
    import re

    assert re.search(f"error: .*({message})", capsys.readouterr().err) and not os.listdir(tmp_path)


def test_other_numbers_of_classes_can_be_imported(tmp_path, capsys):
    model = create_model("spikformer_1_64_digits", num_classes=3)
    np.savez(tmp_path / "a.npz", **to_official(model))
    name = ["--model", "spikformer_1_64_digits", "--out", str(tmp_path / "out")]
    assert main(["import", str(tmp_path / "a.npz"), *name]) == 1
    assert "head.weight is [64, 3], expected [64, 10]" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "a.npz"), *name, "--num-classes", "3"]) == 0
    assert load(tmp_path / "out").head.out_channels == 3
