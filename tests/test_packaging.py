"""The distribution: extras, install commands, the description for package indexes, the sdist."""

from __future__ import annotations

import configparser
import importlib.util
import json
import re
import subprocess
import sys
import tarfile
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

from edge.runtime.install import EXTRAS_OF, extra_for, install_command

ROOT = Path(__file__).resolve().parent.parent
URL = "https://example.org/owner/edge"
# Import name → name of the distribution, where they differ.
DISTRIBUTIONS = {"llama_cpp": "llama-cpp-python", "yaml": "pyyaml"}


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


@pytest.fixture(scope="module")
def extras(setup_cfg: configparser.ConfigParser) -> dict[str, set[str]]:
    """Names of the distributions that each extra installs, with those of the extras in it."""
    lines = {name: text.split("\n") for name, text in setup_cfg["options.extras_require"].items()}

    def installed(extra: str) -> set[str]:
        found = set()
        for line in filter(None, map(str.strip, lines[extra])):
            if inner := re.fullmatch(r"edge-t5\[([\w,-]+)\]", line):
                found |= set().union(*map(installed, inner[1].split(",")))
            else:
                found.add(re.split(r"[\[>=<]", line)[0].replace("_", "-").lower())
        return found

    return {extra: installed(extra) for extra in lines}


def test_the_extra_named_for_a_library_installs_it(extras: dict[str, set[str]]) -> None:
    for library, names in EXTRAS_OF.items():
        distribution = DISTRIBUTIONS.get(library, library.replace("_", "-"))
        for extra in names:
            assert distribution in extras[extra], (library, extra)
    assert extra_for("torch", "train") == "train"
    assert extra_for("torch.nn", "serve") == "torchscript"
    assert extra_for("unknown") is None


def test_one_extra_for_each_target_and_only_gguf_needs_a_compiler(
    extras: dict[str, set[str]],
) -> None:
    from edge.export.base import EXPORTERS

    targets = {EXPORTERS.entry(name).extra for name in EXPORTERS.names()}
    assert targets == {f"export-{name}" for name in EXPORTERS.names()}
    for extra in ("export", "export-onnx", "export-ctranslate2", "export-torchscript"):
        assert "llama-cpp-python" not in extras[extra]
    together = set().union(*(extras[extra] for extra in targets - {"export-gguf"}))
    assert extras["export"] == together
    assert together | extras["export-gguf"] <= extras["all"]
    assert extras["curves"] == {"plotext"}


@pytest.mark.parametrize(
    ("record", "command"),
    [
        (None, "pip install 'edge-t5[onnx]'"),
        ("not JSON", "pip install 'edge-t5[onnx]'"),
        ({"url": "file:///src/my%20edge", "dir_info": {}}, "pip install '/src/my edge[onnx]'"),
        (
            {"url": "file:///src/edge", "dir_info": {"editable": True}},
            "pip install -e '/src/edge[onnx]'",
        ),
        (
            {"url": "file:///tmp/edge_t5-0.1.0-py3-none-any.whl", "archive_info": {}},
            "pip install 'edge-t5[onnx] @ file:///tmp/edge_t5-0.1.0-py3-none-any.whl'",
        ),
        (
            {"url": URL, "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            f"pip install 'edge-t5[onnx] @ git+{URL}@abc'",
        ),
    ],
)
def test_the_command_installs_from_where_edge_is_from(
    monkeypatch: pytest.MonkeyPatch, record: object, command: str
) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return record if record is None or isinstance(record, str) else json.dumps(record)

    monkeypatch.setattr(metadata, "distributions", lambda name: [Installed()])
    assert install_command("onnx") == command


def load_setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("edge_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_of_the_description_are_absolute_or_texts() -> None:
    setup = load_setup()
    linked = setup.description(URL, "1.2.3")
    targets = re.findall(r"\]\(([^)]*)\)", linked)
    assert len(targets) > 20
    assert all(target.startswith(("https://", "#")) for target in targets)
    assert f"]({URL}/raw/v1.2.3/docs/images/engines.svg)" in linked
    assert f"[CONTRIBUTING.md]({URL}/blob/v1.2.3/" in linked or f"({URL}/blob/v1.2.3/" in linked
    for target in re.findall(rf"{URL}/(?:raw|blob)/v1\.2\.3/([^)#]+)", linked):
        assert (ROOT / target).exists(), target
    plain = setup.description("", "1.2.3")
    assert "](docs" not in plain
    assert "formats" in plain
    assert set(setup.project_urls(URL, "1.2.3")) >= {"Source", "Documentation", "Changelog"}
    assert setup.project_urls("", "1.2.3") == {}


def test_license_versions_and_sources() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["license"] == "Apache-2.0"
    torch = project["tool"]["uv"]["sources"]["torch"]
    indexes = {index["name"]: index["url"] for index in project["tool"]["uv"]["index"]}
    assert indexes[torch[0]["index"]].endswith("/whl/cpu")


def test_classifiers_are_the_pythons_of_the_tests(setup_cfg: configparser.ConfigParser) -> None:
    import yaml

    classifiers = setup_cfg["metadata"]["classifiers"]
    stated = set(re.findall(r":: (3\.\d+)", classifiers))
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yaml").read_text())
    matrix = workflow["jobs"]["tests"]["strategy"]["matrix"]["include"]
    assert stated == {entry["python"] for entry in matrix} >= {"3.11", "3.12", "3.13"}


def test_one_page_says_how_to_install() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").iterdir()]
    for page in pages:
        text = page.read_text(encoding="utf-8") if page.is_file() else ""
        bare = re.findall(r"pip install [\"']?edge-t5(?!\[[\w,]+\] @)", text)
        assert not bare, f"{page.name} reads as if edge-t5 were on PyPI"


def test_the_sdist_holds_the_repository(tmp_path: Path) -> None:
    build = "from setuptools.build_meta import build_sdist; build_sdist({!r})"
    subprocess.run(
        [sys.executable, "-c", build.format(str(tmp_path))],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    missing = set(listed.stdout.split("\n")) - names - {""}
    assert not missing
