"""The documentation as a site: the pages that are made of the code, and what mkdocs is told.

No part of the installed package. `make docs` runs it.
"""
