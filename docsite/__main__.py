"""Writes the pages that are made of the code: `python -m docsite`."""

from docsite.pages import DOCS, PAGES

for name, made in PAGES.items():
    (DOCS / name).write_text(made(), encoding="utf-8")
