"""How Sphinx builds the site: `make docs`. Warnings are errors, and nothing is fetched while building."""

from importlib.metadata import version as version_of

project = "Storekeep"
author = "The Storekeep contributors"
copyright = author
release = version_of("storekeep")
version = release

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "Storekeep"
html_show_sourcelink = False
