"""MkDocs hooks: pages and files of the site that are outside docs/, with their links rewritten."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
# Path in the repository → path in the site.
PAGES = {
    "README.md": "index.md",
    **{name: name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")},
    "examples/README.md": "examples/README.md",
}
# A link to a file with one of these names is a download: GitHub shows it, a site can't.
FOLDERS = ("examples", "notebooks")
FILES = ("LICENSE", "tests/export/onnx/run_onnx.cjs", "bench/report/schema.json")

_LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)#\s:]+)(?P<after>[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files that are outside docs/."""
    for source, destination in _outside().items():
        files.append(File.generated(config, destination, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links relative to the page's place in the site instead of the repository."""
    moved = _outside()
    in_site = page.file.src_uri
    in_repository = next((k for k, v in moved.items() if v == in_site), f"docs/{in_site}")

    def rewritten(match: re.Match[str]) -> str:
        folder = posixpath.dirname(in_repository)
        target = posixpath.normpath(posixpath.join(folder, match["target"]))
        if target in moved:
            target = moved[target]
        elif target.startswith("docs/"):
            target = target.removeprefix("docs/")
        else:
            return match[0]  # --strict reports it
        link = posixpath.relpath(target, posixpath.dirname(in_site) or ".")
        return f"{match['before']}{link}{match['after']}"

    return _LINK.sub(rewritten, markdown)


def _outside() -> dict[str, str]:
    """Every file that is added: its path in the repository → its path in the site."""
    found = dict(PAGES)
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).iterdir()):
            name = os.path.relpath(path, ROOT)
            if path.is_file() and not path.name.startswith(".") and name not in found:
                found[name] = name
    return found | {name: name for name in FILES}
