"""The site, by `make docs`: Sphinx with MyST and the book theme; nothing is fetched when a page is opened."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from scenarios.public import version as version_of  # noqa: E402 # found by the path above

project = "lifelong"
author = "the authors of lifelong"
release = version = version_of()
html_title = "lifelong"
extensions = ["myst_parser", "sphinx_copybutton", "manual"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_ext", "_static"]
highlight_language = "text"
smartquotes = False  # what stands in quotes is often code
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries = False  # the headings of a page say enough

myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False  # each page stands beside its HTML as Markdown, with what is made in it
html_show_copyright = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the search stands in the sidebar already
    "footer_content_items": [],
}
copybutton_selector = "div.highlight-shell pre, div.highlight-python pre, div.highlight-toml pre"
nitpick_ignore_regex = [("py:.*", r".*")]  # types of torch and of Python; links between pages are all checked
