"""Our own files: a model comes back from its file alone, and a damaged file is refused."""

import errno
import json
import os
import stat
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minispike import create_model, no_grad
from minispike.files.checkpoint import FORMAT, DiskFull, checksum, load, read_safetensors, save, write_durably
from minispike.files.torchfile import FileFormatError
from minispike.masked import masked_autoencoder
from minispike.surrogate import ATan

from .common import damage, fuzz, same, small

HUGE = {"img_size": 2**20}


@pytest.mark.parametrize(
    "overrides",
    [{}, dict(dtype="float64", T=2), dict(surrogate=ATan(3.0), v_reset=None, tau=3.0), dict(img_size=(4, 8))],
    ids=str,
)
def test_a_model_comes_back_from_the_file_alone(tmp_path, rng, overrides):
    model = small(**overrides)
    save(model, tmp_path / "model.safetensors")
    back = load(tmp_path / "model.safetensors")
    assert same(model, back) and back.config == model.config and os.listdir(tmp_path) == ["model.safetensors"]
    x = rng.standard_normal((3, *model.img_size, 1)).astype(model.head.weight.dtype)
    with no_grad():
        assert np.array_equal(model.eval()(x).data, back.eval()(x).data)


def test_saving_replaces_a_file_and_takes_a_model_from_any_device(tmp_path):
    path = tmp_path / "model.safetensors"
    save(small(T=2), path)
    model = small()
    save(model.to("stand_in"), path)
    assert same(load(path), model.to("cpu"))


def test_a_model_without_configuration_is_refused(tmp_path):
    model = small()
    model.config = None
    with pytest.raises(ValueError, match="made by create_model"):
        save(model, tmp_path / "x")
    model.config = {"family": "spikformer", "surrogate": object()}
    with pytest.raises(ValueError, match="a object in a model's configuration"):
        save(model, tmp_path / "x")


def test_files_that_are_not_ours_are_refused(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match="no file"):
        load(path)
    path.write_bytes(b"hello, this is no checkpoint")
    with pytest.raises(FileFormatError, match="x.safetensors: not a readable safetensors file"):
        load(path)
    save_file({"a": np.ones(3)}, path)
    with pytest.raises(FileFormatError, match="no minispike configuration"):
        load(path)
    config = '{"family": "perceptron", "pools": []}'
    crc = checksum({"a": np.ones(3)}, config + "{}")
    save_file({"a": np.ones(3)}, path, {"format": FORMAT, "config": config, "crc32": crc})
    with pytest.raises(FileFormatError, match="unknown family 'perceptron'; known: spikformer"):
        load(path)
    save_file({"a": np.ones(3)}, path, {"format": "minispike", "config": config, "crc32": crc})
    with pytest.raises(FileFormatError, match="of an older minispike, whose checksum"):
        load(path)


def test_a_masked_autoencoder_comes_back_though_its_encoder_has_a_large_head(tmp_path):
    """The configuration has the head, which a later classifier needs; the file has no weights of it."""
    model = masked_autoencoder("spikformer_v2_1_64_digits", num_classes=10_000)
    save(model, tmp_path / "x.safetensors")
    back = load(tmp_path / "x.safetensors")
    assert same(model, back) and back.config == model.config


def test_a_wrong_bit_in_a_weight_is_noticed(tmp_path):
    path = tmp_path / "model.safetensors"
    save(small(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    with pytest.raises(FileFormatError, match="the checksum differs"):
        load(path)


@pytest.mark.parametrize("right, wrong", [(b'T\\": 1', b'T\\": 3'), (b'_heads\\": 4', b'_heads\\": 0')])
def test_a_wrong_bit_in_the_configuration_is_noticed(tmp_path, right, wrong):
    path = tmp_path / "model.safetensors"
    save(small(T=1), path)
    whole = path.read_bytes()
    assert whole.count(right) == 1
    path.write_bytes(whole.replace(right, wrong))
    with pytest.raises(FileFormatError, match="the checksum differs"):
        load(path)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"embed_dim": 10**6}, "asks for more weights than the file holds"),
        ({"depth": 10**9}, "asks for more weights than the file holds"),
        ({"num_classes": 10**9}, "asks for more weights than the file holds"),
        ({"in_channels": 0}, "from 1 on"),
        ({"num_heads": 0}, "from 1 on"),
        ({"family": "attention_free_spikformer", "mixer": "random", "num_heads": None} | HUGE, "more"),
        ({"decoder_depth": 10**9}, "asks for more weights than the file holds"),
        ({"decoder_dim": 10**9}, "need positions"),
        ({"masked": True} | HUGE, "524288×524288 tokens need positions"),
        ({"pools": [10**10, 0, 0, 0]}, "pools are true or false"),
    ],
)  # fmt: skip
def test_a_configuration_cannot_ask_for_more_memory_than_the_file_justifies(tmp_path, change, told):
    """The checksum is right, as in a file that somebody made on purpose."""
    from safetensors.numpy import save_file

    path, masked = tmp_path / "x.safetensors", "masked" in change or "decoder" in str(change)
    model = masked_autoencoder("spikformer_v2_1_64_digits") if masked else small()
    change = {key: value for key, value in change.items() if key != "masked"}
    save(model, path)
    config = json.loads(read_safetensors(path)[1]["config"])
    inner = config["encoder"] if masked and "img_size" in change else config
    inner |= change
    config = json.dumps({key: value for key, value in config.items() if value is not None})
    arrays = model.state_dict()
    metadata = {"format": FORMAT, "config": config, "crc32": checksum(arrays, config + "{}")}
    save_file(arrays, path, metadata)
    tracemalloc.start()
    with pytest.raises(FileFormatError, match=told):
        load(path)
    assert tracemalloc.get_traced_memory()[1] < 8 * path.stat().st_size + 2**20
    tracemalloc.stop()


@fuzz
@given(st.data())
def test_a_damaged_file_of_ours_gives_the_readers_own_error(tmp_path, data):
    path = tmp_path / "model.safetensors"
    if not path.exists():
        save(create_model("spikformer_1_64_digits", embed_dim=8, num_heads=1, depth=0), path)
        (tmp_path / "whole").write_bytes(path.read_bytes())
    path.write_bytes(damage((tmp_path / "whole").read_bytes(), data))
    try:
        load(path)
    except FileFormatError:
        pass


# ---------------------------------------------------------------- writing


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path, monkeypatch):
    path, previous = tmp_path / "file", tmp_path / "before"
    for text in (b"one", b"two", b"three"):
        write_durably(path, text, previous)
    assert path.read_text() == "three" and previous.read_text() == "two"

    def full(descriptor):
        assert (tmp_path / "file.part").read_text() == "four"  # all of it, before its name
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_durably(path, b"four", previous)
    assert path.read_text() == "three" and previous.read_text() == "two"


def test_a_name_is_made_durable_after_the_bytes(tmp_path, monkeypatch):
    path, fsync, seen = tmp_path / "file", os.fsync, []

    def note(descriptor):
        seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_durably(path, b"content")
    assert seen == [(False, False), (True, True)]  # the file before it has its name, the folder after


# ---------------------------------------------------------------- a full disk


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_named_with_the_path_and_leaves_the_older_file(tmp_path, monkeypatch, number):
    path = tmp_path / "model.safetensors"

    def full(descriptor):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFull, match=f"^no room for 3 bytes in {path} .{os.strerror(number)}.$"):
            write_durably(path, b"new")
    assert os.listdir(tmp_path) == []
    write_durably(path, b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="model.safetensors .*, the older file of this name is kept"):
        write_durably(path, b"new")
    assert os.listdir(tmp_path) == ["model.safetensors"] and path.read_text() == "old"


def test_another_error_of_the_system_stays_what_it_is(tmp_path, monkeypatch):
    def broken(descriptor):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="input/output error") as caught:
        write_durably(tmp_path / "x", b"new")
    assert not isinstance(caught.value, DiskFull)
