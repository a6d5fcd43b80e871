"""The site that `make docs` builds from these pages. Nothing is downloaded for it."""

import sys
from pathlib import Path

import latentseg

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "latentseg"
author = "The latentseg developers"
project_copyright = author
version = release = latentseg.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated"]
exclude_patterns = ["_ext", "notebooks"]

myst_heading_anchors = 4  # links to headings are those of a code host
default_role = "code"  # docstrings name code in single backticks
smartquotes = False  # two dashes before an option stay two dashes
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
maximum_signature_line_length = 90

html_theme = "furo"
html_title = f"latentseg {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
