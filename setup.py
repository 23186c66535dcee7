"""Project URLs and the description for package indexes, which need the repository's address.

EDGE_REPOSITORY_URL is that address; the release workflow sets it. The links of README.md become
absolute, because a package index shows the page alone. Everything else is in setup.cfg.
"""

from __future__ import annotations

import configparser
import os
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)#:\s]+)(?P<anchor>#[^)]*)?\)")


def description(url: str, version: str) -> str:
    """README.md with absolute links into the repository's tag of this version.

    Without an address, links are reduced to their texts, and images are left out.
    """

    def absolute(link: re.Match[str]) -> str:
        image, text, target = link["image"], link["text"], link["target"]
        if not url:
            return "" if image else text
        kind = "raw" if image else "blob"
        return f"{image}[{text}]({url}/{kind}/v{version}/{target}{link['anchor'] or ''})"

    return _LINK.sub(absolute, (ROOT / "README.md").read_text(encoding="utf-8"))


def project_urls(url: str, version: str) -> dict[str, str]:
    """The project's pages by the labels that PyPI knows; empty without an address."""
    if not url:
        return {}
    return {
        "Source": url,
        "Documentation": f"{url}/tree/v{version}/docs",
        "Changelog": f"{url}/blob/v{version}/CHANGELOG.md",
        "Issues": f"{url}/issues",
    }


if __name__ == "__main__":
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    number = config["metadata"]["version"]
    address = os.environ.get("EDGE_REPOSITORY_URL", "").rstrip("/")
    setup(
        long_description=description(address, number),
        long_description_content_type="text/markdown",
        project_urls=project_urls(address, number),
    )
