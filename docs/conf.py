"""Sphinx settings: furo for the looks, MyST for Markdown, API pages from the docstrings."""

import mage

project = "mage-vision"
author = "the mage-vision authors"
project_copyright = author
release = version = mage.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"mage {release}"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
