"""Sphinx's settings for the book. Nothing in it is loaded from elsewhere when it is read."""

import re
from pathlib import Path

from latex2mathml.converter import convert

HERE = Path(__file__).parent
project, author, copyright = "minispike", "The minispike authors", "2026, the minispike authors"
html_title, html_theme = "minispike", "furo"
extensions = ["myst_parser", "sphinx_copybutton", "sphinx.ext.autodoc"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_fence_as_directive = []
html_static_path = [str(HERE / "static")]
html_extra_path = [str(HERE.parent / "build" / "book-pages" / "extra")]
html_js_files, html_css_files = ["widgets.js"], ["book.css"]
html_favicon = str(HERE / "static" / "favicon.svg")
html_copy_source = html_show_sourcelink = False
html_show_sphinx = False
html_math_renderer = "mathml"
exclude_patterns = ["extra"]
autodoc_member_order = "bysource"
nitpick_ignore_regex = [("py:class", r"(collections|pathlib|numpy|minispike)\..*")]  # types in signatures


def docstring_as_it_is(app, what, name, obj, options, lines) -> None:
    """Show a docstring as the text that it is: after its first paragraph it is no reStructuredText."""
    text = list(lines)
    lines[:] = ["::", "", *(f"    {line}" for line in text), ""]


def math(block: bool):
    """Return a visitor that writes a formula as MathML."""

    def visit(self, node) -> None:
        from docutils.nodes import SkipNode

        display = "block" if block else "inline"
        self.body.append(convert(node.astext(), display=display))
        raise SkipNode

    return visit


def tidy(app, error) -> None:
    """Take the marks off white space, plain names and punctuation in code: a third of a page, no colour.

    For screen readers and the keyboard: the side bar's headings, which are no heading elements, get a level,
    and code that is wider than the page can be scrolled by keys.
    """
    for path in Path(app.outdir).rglob("*.html") if error is None else ():
        text = re.sub(r'<span class="(?:w|n|p)">([^<]*)</span>', r"\1", path.read_text("utf-8"))
        text = text.replace('role="heading">', 'role="heading" aria-level="2">')
        path.write_text(text.replace("<pre>", '<pre tabindex="0">'), "utf-8")


def setup(app) -> None:
    app.connect("build-finished", tidy)
    app.connect("autodoc-process-docstring", docstring_as_it_is)
    app.add_html_math_renderer("mathml", (math(False), None), (math(True), None))
