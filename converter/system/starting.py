"""How another process gets this very package: the beginning of its program."""

from __future__ import annotations

from pathlib import Path

import rename_rules

PACKAGES = (Path(__file__).resolve().parents[1], Path(rename_rules.__path__[0]).resolve())
# Loads this package and its rules under any interpreter, without adding their folder to the path: that folder may be
# another environment's site-packages. The current folder is kept off the path as well: it may be a download.
LOAD = f"""
import importlib.util, os, sys
sys.path[:] = [entry for entry in sys.path if entry not in ("", os.getcwd())]
for folder in {[str(folder) for folder in PACKAGES]!r}:
    name = os.path.basename(folder)
    init = os.path.join(folder, "__init__.py")
    spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[folder])
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
"""
