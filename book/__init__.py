"""The book: every lesson as a page, with output, figures and answers. `python -m book` writes it to site/."""
