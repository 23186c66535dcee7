"""Reports: the same figures everywhere, whatever texts they hold, from the JSON document alone."""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from report_samples import HOSTILE, measured_document

from browser import Browser, chromium
from edge.bench.report.document import check_document, read_document, schema
from edge.bench.report.html import html
from edge.bench.report.markdown import markdown
from edge.bench.report.results import labels, points, verdict, winner_index
from edge.bench.report.tables import results_table, tables
from edge.bench.report.write import Outputs, write_reports
from edge.runtime.errors import DataError
from edge.runtime.install import install_command
from edge.runtime.rows import read_rows

ROOT = Path(__file__).resolve().parents[3]
Document = dict[str, Any]


@pytest.fixture(scope="module")
def measured(artifacts: Path, dataset: Path) -> Document:
    """A real run of three artifacts."""
    folders = [artifacts / name for name in ("onnx-int8", "onnx-float32", "gguf-q8_0")]
    return measured_document(folders, read_rows(dataset / "dev.jsonl")[:30], target_ms=60_000)


@pytest.fixture
def document(measured: Document) -> Document:
    """A copy to change."""
    return copy.deepcopy(measured)


@pytest.fixture
def hostile(document: Document) -> Document:
    """The run with names and texts that want to be more than text, and a crashed engine."""
    first = document["results"][0]
    first["quantization"] = HOSTILE
    first["accuracy"]["worst"] = [
        {"line": 3, "task": None, "rouge_l": 0.0, "eval_loss": 9.0}
        | {name: f"{name}: {HOSTILE}\nline 2" for name in ("input", "target", "prediction")}
    ]
    document["machine"]["cpu"] = HOSTILE
    document["command"] = f"edge bench {HOSTILE}"
    crashed = copy.deepcopy(document["results"][1])
    crashed |= {"artifact": "crash", "quantization": "int4", "accuracy": None, "latency": None}
    crashed |= {"error": f"ended with signal 11 {HOSTILE}", "verdict": "not shown"}
    document["results"].append(crashed)
    return document


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


# -- the document ----------------------------------------------------------------------------------


def test_a_real_run_is_of_the_schema(measured: Document) -> None:
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(schema())
    check_document(json.loads(json.dumps(measured)))


def test_every_field_of_the_schema_is_described() -> None:
    page = (ROOT / "docs" / "bench.md").read_text()
    fields = set(re.findall(r"`([a-z0-9_]+)`", page))

    def names(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            yield from part.get("properties", {})
            for inner in part.values():
                yield from names(inner)
        elif isinstance(part, list):
            for inner in part:
                yield from names(inner)

    assert set(names(schema())) - fields == set()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema_version=1), "schema_version 3 (found 1)"),
        (lambda d: d.pop("target_ms"), "'target_ms' is a required property"),
        (lambda d: d.update(kind="compile"), "its kind is 'compile'"),
        (lambda d: d.pop("winner"), "'winner' is a required property"),
        (lambda d: d["winner"].update(result=9), "$.winner.result 9 is not the position"),
        (lambda d: d["results"][0].update(verdict="yes"), "$.results[0].verdict"),
        (lambda d: d["results"][1]["latency"].update(p95="fast"), "$.results[1].latency"),
        (lambda d: d["results"][1]["accuracy"].update(exact_match=80), "$.results[1].accuracy"),
    ],
)
def test_what_is_no_report_is_refused(
    document: Document,
    change: Callable[[Document], object],
    message: str,
    assert_refused: Callable[..., str],
    tmp_path: Path,
) -> None:
    change(document)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(document))
    line = assert_refused("report", path)
    assert str(path) in line
    assert message in line


def test_files_that_are_no_json(assert_refused: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    assert "No such file" in assert_refused("report", path)
    for content in (b"{", b"\xff", b"[" * 100_000, b"[]", b"{}"):
        path.write_bytes(content)
        assert str(path) in assert_refused("report", path)
    with pytest.raises(DataError, match="can't be read"):
        read_document(tmp_path)


# -- what the results amount to --------------------------------------------------------------------


def test_names_tell_results_apart(document: Document) -> None:
    assert labels(document) == ["onnx int8", "onnx float32", "gguf q8_0"]
    first, second, third = document["results"]
    for result, path in ((first, "m/small/int8"), (second, "m/base/int8"), (third, "m/base/q8/")):
        result.update(artifact=path, format="onnx", quantization="int8")
    assert labels(document) == ["small/int8", "base/int8", "base/q8"]
    second.update(artifact="m/small/int8", batch=8)
    third.update(artifact="m/small/int8", batch=8, concurrency=4)
    assert labels(document) == [
        "onnx int8, batch 1",
        "onnx int8, batch 8, 1 at once",
        "onnx int8, batch 8, 4 at once",
    ]


def _set(result: Any, score: float, p95: float, shown: str = "meets") -> None:
    result["accuracy"].update(exact_match=score)
    result["accuracy"]["intervals"]["exact_match"] = [score - 0.05, score + 0.05]
    result["latency"].update(p95=p95)
    result["verdict"] = shown


def test_the_front_and_the_winner(document: Document) -> None:
    document["target_ms"] = 100
    first, second, third = document["results"]
    _set(first, 0.80, 20)
    _set(second, 0.82, 60)
    _set(third, 0.79, 70)
    assert [point.front for point in points(document)] == [True, True, False]
    document["winner"] |= {"result": 0, "reason": "onnx int8 is the fastest."}
    assert winner_index(document) == 0
    assert verdict(document) == (
        "Winner: onnx int8 meets the target of 100 ms (its p95 is 20.0 ms)."
        " onnx int8 is the fastest."
    )
    _set(first, 0.80, 99, "not shown")
    assert verdict(document).startswith(
        "No artifact meets the target of 100 ms with 99 % confidence. The best choice so far is"
    )
    _set(first, 0.80, 120, "misses")
    assert verdict(document).startswith("No artifact meets the target of 100 ms. The best choice")
    # Another batch size is not comparable, and nothing measured has no winner.
    third["batch"] = 8
    assert [point.index for point in points(document)] == [0, 1]
    document["winner"] = None
    assert winner_index(document) is None
    assert verdict(document) == "No winner: nothing was measured with both accuracy and latency."


def test_the_winner_is_marked_in_every_report(
    edge: Callable[..., Any], document: Document, tmp_path: Path
) -> None:
    document["winner"] |= {"result": 2, "reason": "gguf q8_0 is the fastest, for this test."}
    path = tmp_path / "report.json"
    write_reports(document, Outputs(json=path))
    shown = edge("report", path).out
    assert "gguf q8_0 ←" in shown
    assert "| gguf q8\\_0 ← |" in markdown(document) or "| gguf q8_0 ← |" in markdown(document)
    assert '<tr class="winner">\n<td class="left">gguf q8_0</td>' in html(document)
    for text in (shown, markdown(document), html(document)):
        assert "is the fastest, for this test." in text.replace("\\", "")


def test_the_table_has_the_documents_figures(document: Document) -> None:
    table = results_table(document)
    assert [line.cells[0] for line in table.lines] == [*labels(document), "copy the input"]
    result = document["results"][0]
    line = dict(zip(table.columns, table.lines[0].cells, strict=True))
    assert line["BLEU"] == f"{result['accuracy']['bleu']:.1f}"
    assert line["= source"] == f"{result['accuracy']['agreement']:.1%}"
    assert line["p95, ms"] == f"{result['latency']['p95']:.1f}"
    assert line["≤ 60000 ms"] == "✓ meets"
    assert "(" in line["exact match"]  # its interval
    assert "batch" not in line
    result["batch"] = 8
    assert "batch" in results_table(document).columns


# -- the reports -----------------------------------------------------------------------------------


def test_reports_are_functions_of_the_document(
    edge: Callable[..., Any], document: Document, tmp_path: Path
) -> None:
    """What a run writes, `edge report` writes again from its JSON, byte for byte."""
    first, second = tmp_path / "first", tmp_path / "second"
    file = first / "report.json"
    outputs = Outputs(file, first / "report.md", first / "report.html", first / "plots")
    write_reports(document, outputs)
    arguments = ("--markdown", second / "report.md", "--html", second / "report.html")
    ended = edge("report", file, *arguments, "--plots", second / "plots")
    assert ended.status == 0, ended.err
    for name in ("report.md", "report.html", "plots/pareto.png", "plots/latency.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert (first / "plots" / "pareto.png").read_bytes().startswith(b"\x89PNG")
    for word in ("onnx int8", "copy the input", "meets", "bootstrap", verdict(document)):
        assert word in ended.out
    assert "](plots/pareto.png)" in (first / "report.md").read_text()


def test_markdown_shows_texts_as_texts(hostile: Document) -> None:
    text = markdown(hostile)
    assert "<img" not in re.sub(r"(`+) .*? \1", "", text.split("```")[0])
    assert "\x1b" not in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(cells) == 1, table
    assert "✗ failed" in text
    assert "signal 11" in text


def test_the_terminal_shows_texts_as_texts(
    edge: Callable[..., Any], hostile: Document, tmp_path: Path
) -> None:
    hostile["results"][0]["quantization"] = "[red]\x1b[2Jint8"
    path = tmp_path / "report.json"
    write_reports(hostile, Outputs(json=path))
    assert "a lone surrogate is not valid Unicode" in edge("report", path).err
    path.write_text(path.read_text().replace("\\ud800", ""))
    ended = edge("report", path)
    assert ended.status == 0, ended.err
    assert "[red] [2Jint8" in ended.out
    assert "\x1b" not in ended.out
    assert "✗ failed" in ended.out


def test_without_samples_or_accuracy_there_is_a_page_still(document: Document) -> None:
    for result in document["results"]:
        del result["latency"]["samples_ms"]
    page = html(document)
    assert page.count("<svg") == 1
    for result in document["results"]:
        result["accuracy"] = None
    document["baseline"] = document["winner"] = None
    page = html(document)
    assert "<svg" not in page
    assert "nothing was measured with both" in page
    assert tables(document)[0].title.startswith("30 rows")


def test_a_library_that_is_missing_is_told_before_measuring(
    assert_refused: Callable[..., str],
    artifacts: Path,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from edge.bench.report.html import page_template

    page_template.cache_clear()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    arguments = ("bench", artifacts / "onnx-int8", "--data", dataset / "dev.jsonl")
    for option in ("--html", "--plots"):
        line = assert_refused(*arguments, option, tmp_path / "x", status=1)
        assert install_command("bench") in line
    assert not (tmp_path / "x").exists()


def test_reports_belong_to_a_comparison_on_data(assert_refused: Callable[..., str]) -> None:
    line = assert_refused("bench-engines", "flan-t5-small", "--html", "x.html")
    assert "No such option" in line


def test_a_folder_that_is_a_file(
    document: Document, assert_refused: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    write_reports(document, Outputs(json=path))
    (tmp_path / "plots").touch()
    assert "is a file" in assert_refused("report", path, "--plots", tmp_path / "plots")
    assert "would replace an input" in assert_refused("report", path, "--plots", path)


# -- the page, in a browser ------------------------------------------------------------------------


def _open(browser: Browser, text: str, folder: Path) -> None:
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8", errors="replace")
    browser.open(path.as_uri())


def test_the_page_opens_from_disk_and_fetches_nothing(
    browser: Browser, document: Document, tmp_path: Path
) -> None:
    _open(browser, html(document), tmp_path)
    browser.page.set_viewport_size({"width": 1280, "height": 800})
    assert browser.value("document.querySelector('.verdict').textContent") == verdict(document)
    assert browser.value("performance.getEntriesByType('resource').length") == 0
    assert browser.value("document.querySelectorAll('script, link, img, iframe').length") == 0
    cells = "r => [...r.cells].map(c => c.textContent)"
    rows = f"[...document.querySelector('table').rows].map({cells})"
    table = results_table(document)
    assert browser.value(rows) == [list(table.columns), *(list(line.cells) for line in table.lines)]
    wide = "document.querySelector('.wide')"
    assert browser.value(f"{wide}.scrollWidth <= {wide}.clientWidth"), (
        "the verdicts are out of sight"
    )
    # Both plots are drawn, with the target and the names in them, and are seen.
    for place in (0, 1):
        plot = f"document.querySelectorAll('figure svg')[{place}]"
        shown = browser.value(f"{plot}.textContent")
        for text in ("target 60000 ms", *labels(document)):
            assert text in shown
        assert browser.value(f"{plot}.getBoundingClientRect().width") > 300
    assert browser.value("document.querySelectorAll('figure svg').length") == 2
    worst = document["results"][winner_index(document) or 0]["accuracy"]["worst"]
    cells = "[...document.querySelectorAll('details[open] .text')].map(c => c.textContent)"
    assert browser.value(cells) == [
        row[name] for row in worst for name in ("input", "target", "prediction")
    ]
    assert document["command"] in browser.value("document.body.textContent")
    assert document["machine"]["cpu"] in browser.value("document.body.textContent")
    assert browser.errors == []


def test_texts_of_the_data_stay_texts(browser: Browser, hostile: Document, tmp_path: Path) -> None:
    _open(browser, html(hostile), tmp_path)
    assert browser.value("document.querySelectorAll('img, script').length") == 0
    whole = browser.value("document.querySelector('main').textContent")
    assert "{{ 7*7 }}" in whole
    assert "prediction: <img src=x onerror=alert(1)>" in whole
    assert "ended with signal 11" in whole
    # A name that looks like markup is in the plot's legend as it is.
    assert "</svg></script>" in browser.value("document.querySelector('figure svg').textContent")
    assert browser.value("document.querySelectorAll('figure svg').length") == 2
    assert browser.errors == []
