"""Settings of the documentation, built by `make docs` into build/docs."""

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

import generate

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
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
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


def setup(app: Sphinx) -> None:
    """Write the generated pages before Sphinx looks for sources."""
    app.connect("config-inited", lambda app, _: generate.write(Path(app.srcdir) / "generated"))
    app.connect("autodoc-process-docstring", lambda *event: keep_bars(event[-1]))


def keep_bars(lines: list[str]) -> None:
    """Escape the bars of |x|, which reStructuredText would take for a substitution."""
    lines[:] = ["".join(p if p.startswith("`") else p.replace("|", r"\|") for p in CODE.split(line)) for line in lines]
