"""Downloads from a server on this machine: checked, cached, and without a trace when they fail."""

import gzip
import hashlib
import http.server
import re
import sys
import threading
from dataclasses import replace
from functools import partial

import pytest

from data_utils import download
from data_utils.download import DownloadError, fetch, require
from data_utils.images import cifar, mnist

from .common import SMALL10, archived, cifar_files, write_mnist


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, quietly, and notes what was asked for; files named cut… end halfway."""

    asked: list[str] = []

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.asked.append(self.path)
        if not self.path.startswith("/cut"):
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"half")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """(folder that is served, its address, the list of requests); the cache is a new folder next to it."""
    served, cache = tmp_path / "served", tmp_path / "cache"
    served.mkdir()
    monkeypatch.setattr(download, "cache_folder", lambda: cache)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(Handler, "asked", [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=served)) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield served, f"http://127.0.0.1:{httpd.server_port}/", Handler.asked
        httpd.shutdown()
        thread.join()


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def cached(tmp_path) -> dict[str, bytes]:
    """All files in the cache, temporary ones included."""
    return {path.name: path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()}


def test_a_file_is_downloaded_once(server, tmp_path, capfd):
    served, url, asked = server
    (served / "a.bin").write_bytes(b"contents")
    folder = fetch("set", url, {"a.bin": md5(b"contents")}, "load_set")
    assert (folder / "a.bin").read_bytes() == b"contents" and cached(tmp_path) == {"a.bin": b"contents"}
    assert fetch("set", url, {"a.bin": md5(b"contents")}, "load_set") == folder
    assert asked == ["/a.bin"]
    assert "8.00/8.00" in capfd.readouterr().err  # the progress bar


def test_a_corrupted_file_is_refused_and_leaves_nothing(server, tmp_path):
    served, url, _ = server
    (served / "a.bin").write_bytes(b"c0ntents")
    with pytest.raises(DownloadError, match=f"{url}a.bin was not downloaded: MD5 hash .* does not match"):
        fetch("set", url, {"a.bin": md5(b"contents")}, "load_set")
    assert cached(tmp_path) == {}


def test_a_failed_download_leaves_an_older_file_as_it_was(server, tmp_path):
    served, url, asked = server
    (served / "a.bin").write_bytes(b"first")
    fetch("set", url, {"a.bin": md5(b"first")}, "load_set")
    (served / "a.bin").write_bytes(b"broken")
    with pytest.raises(DownloadError, match="does not match"):
        fetch("set", url, {"a.bin": md5(b"second")}, "load_set")
    assert cached(tmp_path) == {"a.bin": b"first"}
    (served / "a.bin").write_bytes(b"second")
    fetch("set", url, {"a.bin": md5(b"second")}, "load_set")
    assert cached(tmp_path) == {"a.bin": b"second"} and len(asked) == 3


@pytest.mark.parametrize("name, reason", [("none.bin", "404"), ("cut.bin", "not downloaded")])
def test_a_missing_or_cut_off_file_says_what_to_do_by_hand(server, tmp_path, name, reason):
    _, url, _ = server
    files = {name: md5(b"half"), "other.bin": md5(b"")}
    advice = rf"By hand: put {name}, other.bin into one folder and call load_set\(root=folder\)"
    with pytest.raises(DownloadError, match=f"{reason}.*{advice}"):
        fetch("set", url, files, "load_set")
    assert cached(tmp_path) == {}


def test_no_server_is_a_download_error(server, tmp_path):
    with pytest.raises(DownloadError, match="http://127.0.0.1:1/a.bin was not downloaded"):
        fetch("set", "http://127.0.0.1:1/", {"a.bin": md5(b"")}, "load_set")
    assert cached(tmp_path) == {}


def test_without_pooch_the_remedy_and_the_files_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pooch", None)
    monkeypatch.setattr(mnist, "DEBIAN", tmp_path / "none")
    for load in (mnist.load_fashion_mnist, mnist.load_mnist, cifar.load_cifar10, cifar.load_cifar100):
        with pytest.raises(ImportError) as caught:
            load()
        assert "pip install 'minispike[data]'" in str(caught.value)
        assert re.search(
            r"By hand: put .*gz into one folder and call load_\w+\(root=folder\)", str(caught.value)
        )
        assert f"{load.__name__}(" in str(caught.value)


def test_without_pooch_there_is_no_cache_folder(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"pip install 'minispike\[data\]', or say which folder to use"):
        download.cache_folder()


def test_the_cache_is_the_systems(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where the system has such a variable
    assert download.cache_folder().name == "minispike"


@pytest.mark.parametrize("kind", ["MNIST", "FASHION"])
def test_mnist_comes_through_the_cache(server, rng, monkeypatch, tmp_path, kind):
    served, url, asked = server
    write_mnist(served, rng, suffix=".gz")
    monkeypatch.setattr(mnist, "DEBIAN", tmp_path / "none")
    monkeypatch.setattr(mnist, f"{kind}_URL", url)
    sums = {path.name: md5(path.read_bytes()) for path in served.iterdir()}
    assert sums.keys() == getattr(mnist, f"{kind}_MD5").keys()
    monkeypatch.setattr(mnist, f"{kind}_MD5", sums)
    load = mnist.load_mnist if kind == "MNIST" else mnist.load_fashion_mnist
    assert load()[0][0].shape == load()[0][0].shape == (6, 32, 32, 1)
    assert len(asked) == 4


def test_cifar_comes_through_the_cache(server, rng, monkeypatch):
    served, url, asked = server
    data = archived(SMALL10, cifar_files(SMALL10, rng))
    (served / SMALL10.archive).write_bytes(data)
    monkeypatch.setattr(cifar, "URL", url)
    monkeypatch.setattr(cifar, "CIFAR10", replace(SMALL10, md5=md5(data)))
    assert cifar.load_cifar10()[0][0].shape == (15, 32, 32, 3)
    (served / SMALL10.archive).unlink()
    assert len(cifar.load_cifar10()[1][0]) == 4 and len(asked) == 1
    broken = gzip.compress(b"broken")
    (served / SMALL10.archive).write_bytes(broken)
    monkeypatch.setattr(cifar, "CIFAR10", replace(SMALL10, md5=md5(data), folder="another"))
    with pytest.raises(DownloadError, match=r"MD5.*put cifar-10-binary.tar.gz .*load_cifar10\(root=folder\)"):
        cifar.load_cifar10()


FILES = [("a", "a.gz"), ("b", "b.gz", "c/b")]


def test_required_files_may_have_several_names_and_places(tmp_path):
    for name in ("a.gz", "b", "c/b", "deep/a", "deep/c/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert require([tmp_path], FILES, "f") == [[tmp_path / "a.gz"], [tmp_path / "b", tmp_path / "c/b"]]
    places = [tmp_path / "c", tmp_path / "deep", tmp_path]  # the first that has all files
    assert require(places, FILES, "f") == [[tmp_path / "deep/a"], [tmp_path / "deep/c/b"]]


def test_missing_files_are_named_with_what_is_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"^f needs in {tmp_path}: a, b; missing: a, b. .* nothing$"):
        require([tmp_path], FILES, "f")
    for name in ("a", "x4", "x1", "x2", "x3", "x0"):
        (tmp_path / name).touch()
    told = "missing: b. The folder holds: a, x0, x1, x2, x3 and 1 more$"
    with pytest.raises(FileNotFoundError, match=told):
        require([tmp_path], FILES, "f")


@pytest.mark.parametrize(
    "data, told",
    [
        (None, "but there is no such folder"),
        (b"PK\x03\x04...", "but this is a zip archive: name a folder, and unpack an archive first$"),
        (b"1,2,3", "but this is a file: name a folder"),
    ],
)
def test_what_is_no_folder_is_called_what_it_is(tmp_path, data, told):
    path = tmp_path / "mnist.zip"
    if data:
        path.write_bytes(data)
    with pytest.raises(FileNotFoundError, match=f"^f needs in {path}: a, b; {told}"):
        require([path], FILES, "f")
