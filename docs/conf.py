"""Settings of the documentation, built by `make docs` into build/docs."""

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

import generate  # type: ignore[import-not-found] # stands beside this file

project = "recvae"
author = "recvae authors"
project_copyright = "recvae authors, MIT License"
version = release = version_of("recvae")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["*.py"]
default_role = "code"  # docstrings write `name` for code

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings have them, with shapes
autodoc_inherit_docstrings = True
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"  # its fonts are the reader's own, so that the pages ask no other host for anything
html_title = "recvae"
html_static_path = ["static"]
html_css_files = ["wide-tables.css"]
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"

CODE = re.compile(r"(`+[^`]*`+)")
SEVERAL = re.compile(r"^(\w+(?:, \w+)+) : ")


def setup(app: Sphinx) -> None:
    """Write the generated pages before Sphinx looks for sources, and adapt docstrings before napoleon reads them."""
    app.connect("config-inited", lambda app, _: generate.write(Path(app.srcdir) / "generated"))
    app.connect("autodoc-process-docstring", lambda *event: adapt(event[-1]), priority=400)


def adapt(lines: list[str]) -> None:
    """Escape the bars of |x|, and join names of attributes that share a line: napoleon takes the second for a type."""
    attributes = False
    for i, line in enumerate(lines):
        attributes = line == "Attributes" or (attributes and line not in ("Notes", "Parameters"))
        text = SEVERAL.sub(lambda found: f"{found[1].replace(', ', ',')} : ", line) if attributes else line
        lines[i] = "".join(part if part.startswith("`") else part.replace("|", r"\|") for part in CODE.split(text))
