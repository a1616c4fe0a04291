"""Configuration of the documentation; `make docs` builds it with warnings as errors."""

from importlib.metadata import version as installed_version

project = "neuromm"
author = "The neuromm developers"
copyright = "The neuromm developers"
version = release = installed_version("neuromm")

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/**/*.ipynb", "gallery/**/*.py"]
default_role = "py:obj"

# Names that are loaded on first use are members of their package all the same.
autosummary_generate = True
autosummary_imported_members = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
myst_heading_anchors = 3

# A checkout may lie in a folder with spaces; no page links to a script by its path.
suppress_warnings = ["sphinx_gallery.space_in_filename"]

html_theme = "furo"
html_title = "neuromm"
html_static_path = ["_static"]

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "min_reported_time": 1_000,
    "within_subsection_order": "FileNameSortKey",
}
