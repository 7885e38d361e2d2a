"""Wrappers and prefixes that people use, and files that are something else."""

import gzip
import io
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from minispike import create_model
from minispike.files.checkpoint import load, read_safetensors, save
from minispike.files.interop import find_state_dict, load_official, read_weights, to_official
from minispike.files.torchfile import FileFormatError, read_torch
from minispike.runs.cli import main

from .common import same, small, small_once
from .edges import blank, npy, prefixed, tensors, zip_of
from .test_contents import BESIDE
from .torch_writer import (
    tensor,
    write_legacy,
    write_torch,
)

# ---------------------------------------------------------------- wrappers and prefixes


def average(state: dict) -> dict:
    """Return other numbers under the same names, as a moving average has them."""
    return {name: array + 1 for name, array in state.items()}


TREES = {  # how a state_dict s is wrapped: the entry that is taken, the averages that are not
    "itself": (lambda s: s, "", []),
    "timm": (lambda s: {"epoch": 1, "arch": "x", "state_dict": s, "state_dict_ema": average(s)},
             "state_dict", ["state_dict_ema"]),
    "DeiT": (lambda s: {"model": s, "model_ema": average(s), "optimizer": {"state": {0: {"v": np.ones(2)}}}},
             "model", ["model_ema"]),
    "BasicSR": (lambda s: {"params": s, "params_ema": average(s)}, "params", ["params_ema"]),
    "the first is the average": (lambda s: {"ema": average(s), "net": s}, "net", ["ema"]),
    "net": (lambda s: {"net": s, "acc": 93.1, "epoch": 7}, "net", []),
    "model_state_dict": (lambda s: {"model_state_dict": s, "loss": np.array(0.1)}, "model_state_dict", []),
    "module": (lambda s: {"module": s}, "module", []),
    "two layers": (lambda s: {"state_dict": {"model": s, "ema": {"decay": 0.9, "module": average(s)}}},
                   "state_dict.model", ["state_dict.ema.module"]),
    "an accuracy as tensor": (lambda s: {"best_acc1": np.array(93.1), "state_dict": s}, "state_dict", []),
    "settings under a usual key": (lambda s: {"params": {"lr": 0.1}, "model": {"T": 4}, "net": s}, "net", []),
    "the same dict twice": (lambda s: {"model": s, "state_dict": s}, "model", []),
    "only an average": (lambda s: {"ema_state_dict": s}, "ema_state_dict", []),
    "DataParallel": (lambda s: prefixed(s, "module."), "", []),
    "torch.compile": (lambda s: prefixed(s, "_orig_mod."), "", []),
    "all of them": (lambda s: {"state_dict": prefixed(s, "model._orig_mod.module.")}, "state_dict", []),
    "repeated": (lambda s: prefixed(s, "module.module."), "", []),
    "Lightning": (
        lambda s: {"state_dict": prefixed(s, "net.") | {"loss.weight": np.ones(10), "acc.total": np.array(3)},
                   "hyper_parameters": {"lr": 1}, "pytorch-lightning_version": "2.1"}, "state_dict", []),
    "Lightning with an average": (
        lambda s: {"state_dict": prefixed(s, "model.") | prefixed(average(s), "model_ema.module.")},
        "state_dict", ["state_dict.model_ema.module"]),
    "AveragedModel": (lambda s: prefixed(s, "module.") | {"n_averaged": np.array(5)}, "", []),
    "compiled layers": (
        lambda s: {name.replace("block.0.attn.", "block.0._orig_mod.attn._checkpoint_wrapped_module."): a
                   for name, a in s.items()}, "", []),
    "flat": (lambda s: prefixed(s, "state_dict.model.") | prefixed(average(s), "ema."), "", ["ema"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", TREES)
def test_weights_are_found_in_the_wrappers_that_people_use(kind):
    make, entry, others = TREES[kind]
    model, other = small(), blank()
    report = load_official(make(to_official(model)), other)
    assert same(model, other) and (report.entry, report.others) == (entry, others)
    assert len(report.matched) == len(model.state_dict())
    if others:
        assert f"taken: {entry or 'the weights'}, not {others[0]}: --entry takes another" in str(report)


AVERAGES = [kind for kind, (_, _, others) in TREES.items() if others]


@pytest.mark.parametrize("kind", AVERAGES)
def test_the_average_is_taken_by_the_name_that_the_report_gives(kind):
    make, _, others = TREES[kind]
    other = blank()
    report = load_official(make(to_official(small())), other, entry=others[0])
    expected = average(to_official(small()))
    assert all(np.allclose(array, expected[name]) for name, array in to_official(other).items())
    assert report.entry == others[0] and not report.others


@pytest.mark.parametrize("kind", ["Lightning", "Lightning with an average", "flat", "AveragedModel"])
def test_every_kind_of_file_has_its_prefixes_taken_off(tmp_path, kind):
    model, (make, _, others) = small(), TREES[kind]
    flat = make(to_official(model))
    flat = {name: array.astype("f4") for name, array in flat.get("state_dict", flat).items()}
    write_torch(tmp_path / "x.pth", tensors(flat))
    write_legacy(tmp_path / "x.tar", tensors(flat))
    save_file(flat, tmp_path / "x.safetensors")
    np.savez(tmp_path / "x.npz", **flat)
    for name in os.listdir(tmp_path):
        other = blank()
        report = load_official(tmp_path / name, other)
        assert same(model, other) and len(report.others) == len(others), name
        if others:
            load_official(tmp_path / name, other, entry=report.others[0])
            np.testing.assert_allclose(other.head.bias.data, model.head.bias.data + 1)


def test_a_key_that_nobody_knows_is_taken_when_it_is_named():
    model, other = small(), blank()
    tree = {"epoch": 1, "best": {"student": to_official(model)}, "plain": to_official(model), "args": None}
    with pytest.raises(
        FileFormatError, match="it holds: epoch, best, plain, args; --entry takes one of plain"
    ):
        load_official(tree, other)
    for entry in ("plain", "best.student"):
        assert load_official(tree, blank(), entry=entry).entry == entry
    load_official(prefixed(to_official(model), "student."), other, entry="student")
    assert same(model, other)
    for entry in ("teacher", "best.teacher", "best.student.x", "epoch", ""):
        with pytest.raises(ValueError, match="no entry|it holds"):
            load_official(tree, other, entry=entry)
    with pytest.raises(ValueError, match="no entry 'ema' in this checkpoint; it holds: list"):
        find_state_dict([1], "ema")


def test_a_whole_model_that_was_pickled_is_recognised(tmp_path):
    state = {"training": True, "_parameters": {}, "_modules": {"head": 1}}
    program = b"\x80\2cnet\nSpikformer\n)\x81" + pickle.dumps(state, 2)[2:-1] + b"b"
    for whole, told in ((program + b".", "it holds: net.Spikformer"), (
        program[:2] + b"}X\5\0\0\0model" + program[2:] + b"s.", r"it holds: model \(net.Spikformer\)"
    )):  # fmt: skip
        zip_of(tmp_path / "x.pth", [("x/data.pkl", whole)])
        with pytest.raises(
            FileFormatError, match=rf"x.pth: no state_dict .*{told}\. A whole model.*\.state_dict"
        ):
            load_official(tmp_path / "x.pth", small_once())


def test_a_checkpoint_that_holds_itself_ends(tmp_path):
    program = b"\x80\2}q\0(X\5\0\0\0modelh\0X\3\0\0\0emah\0X\3\0\0\0neth\0u."
    zip_of(tmp_path / "x.pth", [("x/data.pkl", program)])
    with pytest.raises(FileFormatError, match="no state_dict"):
        load_official(tmp_path / "x.pth", small_once())
    deep: dict = {"w.x": np.ones(1)}
    for _ in range(50):
        deep = {"model": deep, "net": deep, "ema": deep}
    with pytest.raises(FileFormatError, match="no state_dict"):
        find_state_dict(deep)


def test_the_entry_is_an_option_of_import(tmp_path, capsys):
    model = create_model("spikformer_1_64_digits", rng=3)
    theirs = to_official(model)
    tree = {
        "model": tensors(theirs),
        "model_ema": tensors(average(theirs), 1000),
        "args": BESIDE["object"][0],
    }
    write_torch(tmp_path / "x.pth", tree)
    out = tmp_path / "new.safetensors"
    command = ["import", str(tmp_path / "x.pth"), "--model", "spikformer_1_64_digits", "--out", str(out)]
    assert main([*command, "--entry", "teacher"]) == 1 and not out.exists()
    holds = "it holds: model, model_ema, args (args.Options); --entry takes one of model, model_ema"
    assert f"no entry 'teacher' in this checkpoint; {holds}" in capsys.readouterr().err
    assert main(command) == 0 and same(load(out), model)
    printed = capsys.readouterr().out
    assert "taken: model, not model_ema: --entry takes another\npassed over: args (args.Options)" in printed
    assert main([*command, "--entry", "model_ema"]) == 0
    np.testing.assert_allclose(load(out).head.bias.data, model.head.bias.data + 1)
    assert "taken: model_ema\n" in capsys.readouterr().out


# ---------------------------------------------------------------- which file it is instead


def tar_of(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("checkpoint/model.pth")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 163215\n"
OTHERS = {  # a file's content, and what it is called and what to do
    "tar": (tar_of(b"x"), "a tar archive: unpack it, with tar -xf, and take the checkpoint in it"),
    "tar.gz": (gzip.compress(tar_of(b"x")), "a file compressed by gzip: unpack it first"),
    "bz2": (b"BZh91AY&SY", "a file compressed by bzip2"),
    "xz": (b"\xfd7zXZ\0\0\4", "a file compressed by xz"),
    "zstd": (b"\x28\xb5\x2f\xfd\4", "a file compressed by zstd"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0", "a 7z archive"),
    "rar": (b"Rar!\x1a\7", "a RAR archive"),
    "empty": (b"", "an empty one: download or copy it again"),
    "zeros": (bytes(5000), "one that begins with zeros only: download or copy it again"),
    "lfs": (LFS, "a Git LFS pointer, not the file itself: get that with `git lfs pull`"),
    "html": (b"\n<!DOCTYPE html>\n<html><title>404</title>", "a web page, perhaps one that reports an error"),
    "html 2": (b"\xef\xbb\xbf<HTML><body>Quota exceeded", "a web page, perhaps one that reports an error"),
    "xml": (
        b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>",
        "a web page, perhaps one that reports an er",
    ),
    "hub": (b"Entry not found", "a text that begins with 'Entry not found'"),
    "json": (
        b'{"data":{"weight_map": {"head.weight": "1.bin"}}}',
        'a text that begins with \'{"data":{"weight',
    ),
    "source": ("# spikformer, vör\nimport torch\n".encode(), "a text that begins with '# spikformer, vör"),
    "hdf5": (b"\x89HDF\r\n\x1a\n\0", "an HDF5 file, as Keras writes it"),
    "npy": (npy(np.ones(3)), "a single NumPy array without a name: write all of them with numpy.savez"),
    "pickle": (pickle.dumps({"w": [1, 2]}), "a plain pickle, written by pickle.dump"),
    "pickle 2": (pickle.dumps({"w": [1, 2]}, 2), r"a plain pickle, .*torch.save\(pickle.load\(open\(file"),
    "empty zip": (b"PK\5\6" + bytes(18), "an empty zip archive"),
    "picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a picture, of the kind PNG"),
    "noise": (bytes(range(7, 256)), "one of an unknown kind"),
}


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize("kind", OTHERS)
def test_another_file_is_called_by_its_kind_and_the_remedy_is_named(tmp_path, kind, name):
    content, told = OTHERS[kind]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=f"{name}: not a PyTorch file but {told}"):
        load_official(path, small_once())
    with pytest.raises(FileFormatError, match=f"{name}: not a readable safetensors file: {told}"):
        load(path)


ARCHIVES = {
    "TorchScript": (["x/data.pkl", "x/code/__torch__.py", "x/constants.pkl"],
                    r"a TorchScript program.*torch.save\(torch.jit.load\(file, map_location=.*state_dict"),
    "torch.export": (["x/data/weights/weight_0", "x/models/model.json"],
                     r"a program of torch.export.*torch.export.load\(file\).state_dict, new_file"),
    "zipped checkpoint": (["spikformer/best.pth", "spikformer/log.txt"],
                          r"a zip archive of other files \(spikformer/best.pth, .*log.txt\): unpack it"),
    "many files": (list("abcdef"), r"a zip archive of other files \(a, b, c, d, …\): unpack it"),
}  # fmt: skip


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("kind", ARCHIVES)
def test_another_zip_archive_is_called_by_its_kind(tmp_path, kind, compression):
    names, told = ARCHIVES[kind]
    with zipfile.ZipFile(tmp_path / "x.pth", "w", compression) as archive:
        for name in names:
            archive.writestr(name, b"content" * 50)
    with pytest.raises(FileFormatError, match=f"x.pth: {told}"):
        load_official(tmp_path / "x.pth", small_once())


def test_a_zip_file_that_is_cut_short_says_so(tmp_path):
    for name, write in (("x.pth", write_torch), ("x.npz", lambda path, tree: np.savez(path, w=np.ones(99)))):
        write(tmp_path / name, {"w": tensor(np.ones(99))})
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(
            FileFormatError, match=f"{name}: damaged: a zip archive without its end; download"
        ):
            load_official(tmp_path / name, small_once())


def test_our_own_checkpoint_given_to_import_says_that_it_is_one(tmp_path, capsys):
    path = tmp_path / "ours.safetensors"
    save(small(), path)
    with pytest.raises(
        FileFormatError, match="ours.safetensors: a model of minispike already.*minispike.load"
    ):
        load_official(path, small())
    out = tmp_path / "out"
    assert main(["import", str(path), "--model", "spikformer_1_64_digits", "--out", str(out)]) == 1
    assert "a model of minispike already" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(
    "write", [write_torch, write_legacy, lambda path, tree: np.savez(path, w=np.ones(2))]
)
def test_an_authors_checkpoint_given_to_load_says_to_import_it(tmp_path, write):
    path = tmp_path / "x.npz"
    write(path, {"w": tensor(np.ones(2))})
    with pytest.raises(
        FileFormatError, match="x.npz: .*: python -m minispike import FILE --model NAME --out"
    ):
        load(path)
    save_file({"w": np.ones(2)}, path)
    with pytest.raises(
        FileFormatError, match="x.npz: holds arrays but no .*: python -m minispike import FILE"
    ):
        load(path)


def test_a_folder_is_told_from_a_file(tmp_path):
    for read in (load, read_torch, read_safetensors, read_weights):
        with pytest.raises(FileNotFoundError, match="no file .*none"):
            read(tmp_path / "none")
        with pytest.raises(IsADirectoryError, match=f"{tmp_path.name} is a folder: give a file in it"):
            read(tmp_path)
    (tmp_path / "data.pkl").touch()
    with pytest.raises(IsADirectoryError, match="is a folder, an unpacked .pth: download or copy it again"):
        read_weights(tmp_path)
    (tmp_path / "checkpoint.safetensors").touch()
    with pytest.raises(IsADirectoryError, match="a run of minispike; its model is .*/checkpoint.safetensors"):
        load(tmp_path)


def test_a_file_of_ours_with_a_foreign_dtype_is_refused(tmp_path):
    save(small(), tmp_path / "x.safetensors")
    whole = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(whole.replace(b'"dtype":"F32"', b'"dtype":"X32"', 1))
    with pytest.raises(FileFormatError, match="is an array of X32, which minispike never writes"):
        load(tmp_path / "x.safetensors")
