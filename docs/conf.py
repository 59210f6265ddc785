"""How the documentation is built: ``make docs``. Nothing is fetched, so it reads offline.

The pages are Markdown. The command line's reference is read off the commands, the Python one off
the docstrings, so neither can say what is not so. Warnings are errors.
"""

import parnet_deploy

project = "parnet_deploy"
author = "the parnet_deploy authors"
version = release = parnet_deploy.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3  # links to headings work as they do on a forge

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Shapes", "Units", "Owns", "Source"]

# Types in signatures that have no page: of other projects, and internal ones.
nitpick_ignore_regex = [
    (r"py:(class|obj|exc)", r"(?!parnet_deploy\.(errors|compare)\.).*"),
]

html_theme = "furo"
html_title = f"parnet_deploy {release}"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
