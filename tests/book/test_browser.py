"""The book in a real browser: pytest -m browser opens each of its pages, wide and narrow, light and dark.

pip install -e ".[book,test]" playwright axe-playwright-python nbclient ipykernel && apt-get install chromium
"""

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from minispike import Tensor, lif, ops
from minispike.surrogate import ATan, FastSigmoid, Rectangle, Sigmoid, Triangle

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium")
SIZES = [(1440, "light"), (1440, "dark"), (390, "light"), (390, "dark")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The whole book, built with warnings as errors."""
    out, root = tmp_path_factory.mktemp("book") / "site", Path(__file__).parents[2]
    subprocess.run([sys.executable, "-m", "book", "--out", str(out)], cwd=root, check=True)
    return out


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "there is no chromium"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def page(browser):
    """A page that collects its errors and whatever it asks for elsewhere."""
    opened = browser.new_page()
    opened.errors, opened.outside = [], []
    opened.on("console", lambda m: opened.errors.append(m.text) if m.type == "error" else None)
    opened.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.on(
        "request", lambda r: None if r.url.startswith(("file:", "data:")) else opened.outside.append(r.url)
    )
    yield opened
    opened.close()


def address(site, name):
    return f"file://{site / name}"


def pages(site):
    return sorted(
        path.relative_to(site).as_posix() for path in site.rglob("*.html") if "_static" not in path.parts
    )


@pytest.mark.parametrize("width, scheme", SIZES)
def test_every_page_is_whole(site, browser, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened, errors, outside = context.new_page(), [], []
    opened.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else outside.append(r.url))
    names = pages(site)
    assert len(names) > 60
    for name in names:
        opened.goto(address(site, name))
        overflow = opened.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        broken = opened.evaluate(
            "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
        )
        assert overflow <= 0 and not broken and not errors and not outside, (
            name,
            overflow,
            broken,
            errors,
            outside,
        )
    context.close()


def test_no_page_is_heavy(site):
    import gzip

    for name in pages(site):
        if name.startswith(("lessons/", "source/")) or name == "index.html":
            data = (site / name).read_bytes()
            assert len(data) <= 150_000 and len(gzip.compress(data)) <= 30_000, (name, len(data))


def test_answers_are_folded_and_unfold(site, page):
    page.goto(address(site, "lessons/01_lif.html"))
    answer = page.locator("details", has_text="answer").first
    inside = answer.locator("p").first
    assert not inside.is_visible()
    answer.locator("summary").first.click()
    assert inside.is_visible()


def test_search_finds_ssa(site, page):
    page.goto(address(site, "search.html") + "?q=SSA")
    page.wait_for_selector("#search-results li", timeout=20_000)
    assert "ssa" in page.locator("#search-results").inner_text().lower()


def test_it_works_over_http_too(site, page):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.goto(f"http://127.0.0.1:{server.server_port}/lessons/03_ssa.html")
        assert page.locator("h1").inner_text().startswith("03")
        page.locator("a.next-page").click()
        assert page.locator("h1").inner_text().startswith("04")
        server.shutdown()
    assert not page.errors
    assert (site / ".nojekyll").exists()


def test_nothing_serious_for_people_who_do_not_see_the_page(site, page):
    from axe_playwright_python.sync_playwright import Axe

    for name in (
        "index.html",
        "lessons/01_lif.html",
        "lessons/03_ssa.html",
        "lessons/05_fourier.html",
        "source/neuron.html",
    ):
        page.goto(address(site, name))
        found = Axe().run(page).response["violations"]
        serious = [
            (each["id"], each["nodes"][0]["html"][:120])
            for each in found
            if each["impact"] in ("serious", "critical")
        ]
        assert not serious, (name, serious)


# ---------------------------------------------------------------- widgets


def test_each_widget_moves_and_says_what_it_shows(site, page):
    page.goto(address(site, "lessons/01_lif.html"))
    for tag, control in (("lif-playground", "input X"), ("surrogate-playground", "steepness α")):
        widget = page.locator(tag)
        before = widget.locator("p").inner_text()
        slider = widget.get_by_label(control)
        slider.focus()
        for _ in range(8):
            page.keyboard.press("ArrowRight")
        assert widget.locator("p").inner_text() != before
    page.goto(address(site, "lessons/03_ssa.html"))
    ssa = page.locator("ssa-playground")
    before = ssa.locator("p").inner_text()
    ssa.get_by_label("token 10", exact=True).focus()
    page.keyboard.press("Enter")
    assert ssa.locator("p").inner_text() != before and "Token 10's query" in ssa.locator("p").inner_text()
    for name in ("05_fourier", "06_wavelet"):
        page.goto(address(site, f"lessons/{name}.html"))
        mixing = page.locator("mixing-playground")
        mixing.get_by_label("token 0", exact=True).click()
        assert mixing.locator("p").inner_text().startswith("2 of 16 tokens are 1")
    assert not page.errors


def run(page, expression, *arguments):
    """Evaluate a function of the page's minispike on numbers."""
    return page.evaluate(f"(a) => minispike.{expression}(...a)", json.loads(json.dumps(arguments)))


def test_the_neurons_arithmetic_is_minispikes_bit_for_bit(site, page):
    page.goto(address(site, "lessons/01_lif.html"))
    rng = np.random.default_rng(0)
    for tau in (1.5, 1.7, 2.0, 3.0, 16.0):
        for reset in (0.0, -0.3, None):
            x = rng.normal(1, 1, 200)
            found = run(page, "lif", x.tolist(), {"tau": tau, "threshold": 0.7, "reset": reset})
            assert found["S"] == lif(x, tau=tau, v_threshold=0.7, v_reset=reset).data.tolist()


def test_slopes_and_gradients_are_minispikes(site, page):
    page.goto(address(site, "lessons/01_lif.html"))
    rng = np.random.default_rng(1)
    for kind in (Sigmoid, ATan, Triangle, Rectangle, FastSigmoid):
        x, gy = rng.normal(1, 1, 50), rng.standard_normal(50)
        leaf = Tensor(x, requires_grad=True)
        lif(leaf, tau=3.0, surrogate=kind(2.0)).backward(gy)
        H = run(page, "lif", x.tolist(), {"tau": 3.0})["H"]
        settings = {"tau": 3.0, "surrogate": kind.__name__, "alpha": 2.0}
        np.testing.assert_allclose(
            run(page, "bptt", H, gy.tolist(), settings), leaf.grad, rtol=1e-12, atol=1e-12
        )


def test_counts_and_mixtures_are_minispikes(site, page):
    page.goto(address(site, "lessons/03_ssa.html"))
    rng = np.random.default_rng(2)
    q, k = rng.integers(0, 2, (2, 5, 7))
    assert run(page, "coincidences", q.tolist(), k.tolist()) == (q @ k.T).tolist()
    assert run(page, "costs", 64, 32) == [2 * 64 * 64 * 32, 2 * 64 * 32 * 32]
    x = rng.standard_normal(16)
    for name, expected in (
        ("fourier", ops.fourier(x[:, None]).data[:, 0]),
        ("haar", ops.wavelet(x[:, None], (4, 4)).data[:, 0]),
    ):
        lesson = "05_fourier" if name == "fourier" else "06_wavelet"
        page.goto(address(site, f"lessons/{lesson}.html"))
        matrix = page.evaluate(
            "JSON.parse(document.querySelector('mixing-playground script').textContent).matrices"
        )
        np.testing.assert_allclose(
            run(page, "mix", matrix[name], x.tolist()), expected, rtol=1e-12, atol=1e-12
        )


# ---------------------------------------------------------------- notebooks


def test_a_lesson_runs_as_a_notebook(site, tmp_path):
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(site / "notebooks" / "16_pairs.ipynb", as_version=4)
    nbformat.validate(book)
    client = NotebookClient(
        book, timeout=300, resources={"metadata": {"path": str(Path(__file__).parents[2])}}
    )
    client.execute()
    printed = "".join(out.get("text", "") for cell in book.cells for out in cell.get("outputs", []))
    assert "fresh pairs an epoch" in printed
