"""Sphinx's settings. The tables of plan keys and families are written anew at each build."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from plan_keys import plan_keys  # noqa: E402
from ship import families  # noqa: E402

project, author = "tune-rh", "The tune-rh maintainers"
version = release = installed("tune-rh")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 3
html_theme = "furo"
html_show_copyright = False
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_type_aliases = {name: name for name in ("OnEvent", "Say")}
# A docstring's single backticks name code of this project.
default_role = "code"

(HERE / "reference" / "plan-keys.md").write_text(plan_keys(), encoding="utf-8")
(HERE / "reference" / "families.md").write_text(families(), encoding="utf-8")
