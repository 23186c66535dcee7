"""TorchScript is code: it runs only if this user exported it, or says so."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from artifact_forgery import forge

from edge.export.exported import Exported
from edge.export.publish import Publisher, Target
from edge.runtime import load
from edge.runtime.artifact.trust import is_recorded, record_trust, trusted_folder
from edge.runtime.errors import ArtifactError, EdgeError
from edge.runtime.probe import probe
from samples import save_letter_model

Edge = Callable[..., Any]
SECRET = b"secret!!"


class Attack(torch.nn.Module):
    """Reads and writes a file when it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.content = torch.zeros(8, dtype=torch.uint8)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return (self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        opened = torch.from_file(self.path, shared=True, size=8, dtype=torch.uint8)
        self.content = opened.clone()
        self.content = opened.fill_(65)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    source = save_letter_model(tmp_path_factory.mktemp("model"), seed=11)
    output = tmp_path_factory.mktemp("artifact") / "torchscript"
    return Publisher(source).publish(Target("torchscript", "float32"), output)


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file that must stay as it is."""
    path = tmp_path / "victim"
    path.write_bytes(SECRET)
    yield path
    assert path.read_bytes() == SECRET


@pytest.fixture
def attack(exported: Exported, victim: Path, tmp_path: Path) -> Path:
    """A consistent artifact whose model.ts writes `victim` when it is loaded."""

    def change(folder: Path) -> None:
        torch.jit.script(Attack(str(victim))).save(str(folder / "model.ts"))
        with zipfile.ZipFile(folder / "model.ts", "a") as archive:
            root = archive.namelist()[0].split("/")[0]
            archive.writestr(f"{root}/data/999", bytes(1 << 18))  # as large as its manifest says

    return forge(exported.folder, tmp_path / "attack", change)


def test_the_attack_works(attack: Path, victim: Path) -> None:
    """Otherwise the tests below would show nothing."""
    torch.jit.load(str(attack / "model.ts"))
    assert victim.read_bytes() == b"A" * 8
    victim.write_bytes(SECRET)


@pytest.mark.parametrize("verify", [False, True])
def test_load_refuses(attack: Path, verify: bool) -> None:
    with pytest.raises(ArtifactError, match="--trust-code") as caught:
        load(attack, verify=verify)
    assert "\n" not in str(caught.value)


def test_a_trial_load_refuses(attack: Path) -> None:
    with pytest.raises(ArtifactError, match="--trust-code"):
        probe(attack)


def test_verify_does_not_run_it(attack: Path, edge: Edge) -> None:
    ended = edge("verify", attack)
    assert ended.status == 0, ended
    assert "sha256 match" in ended.out
    assert "not run: model.ts is code" in ended.out


def test_commands_refuse(attack: Path, assert_refused: Callable[..., str], tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"input": "hello", "target": "hello"}\n' * 3, encoding="utf-8")
    for command in (
        ("run", attack, "hello"),
        ("run", attack, "--input", rows),
        ("tune", attack),
        ("chat", attack),
        ("serve", attack, "--port", 0),
    ):
        assert "--trust-code" in assert_refused(*command), command


def test_batch_workers_and_bench_refuse(attack: Path, edge: Edge, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    rows = '{"input": "hello", "target": "hello"}\n' * 3
    (shards / "a.jsonl").write_text(rows, encoding="utf-8")
    ended = edge("run", attack, "--input", shards, "--output", tmp_path / "out", "--workers", 1)
    assert ended.status != 0
    assert "--trust-code" in ended.err
    data = shards / "a.jsonl"
    ended = edge("bench", attack, "--data", data, "--runs", 30, "--min-time", 0)
    assert ended.status != 0
    assert "--trust-code" in ended.err + ended.out


def test_a_copy_with_other_bytes_is_not_trusted(exported: Exported, tmp_path: Path) -> None:
    def change(folder: Path) -> None:
        with (folder / "model.ts").open("ab") as file:
            file.write(b"\0")

    copy = forge(exported.folder, tmp_path / "copy", change)
    with pytest.raises(ArtifactError, match="--trust-code"):
        load(copy)


def test_a_damaged_copy_needs_another_copy(exported: Exported, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(exported.folder, copy)
    data = bytearray((copy / "model.ts").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.ts").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"altered.*copy or export it again"):
        load(copy)


# -- exported here, or trusted by the caller -----------------------------------------------------


def test_an_exported_artifact_loads(exported: Exported, tmp_path: Path, edge: Edge) -> None:
    assert not exported.needs_trust
    moved = tmp_path / "moved"
    shutil.copytree(exported.folder, moved)
    with load(moved) as model:
        assert model.generate("hello", max_new_tokens=2).token_ids
    ended = edge("verify", moved)
    assert "torchscript loads and answers" in ended.out, ended


def test_elsewhere_it_needs_trust(
    exported: Exported, tmp_path: Path, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another-user"))
    assert "not run" in edge("verify", exported.folder).out
    assert "loads and answers" in edge("verify", exported.folder, "--trust-code").out
    assert edge("run", exported.folder, "hello", "--max-new-tokens", 2).status == 2
    trusted = ("run", exported.folder, "hello", "--max-new-tokens", 2, "--trust-code")
    assert edge(*trusted).status == 0


def test_trust_reaches_the_processes_of_bench_and_batch(
    exported: Exported, tmp_path: Path, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another-user"))
    shards = tmp_path / "shards"
    shards.mkdir()
    rows = '{"input": "hello", "target": "hello"}\n' * 3
    (shards / "a.jsonl").write_text(rows, encoding="utf-8")
    batch = ("run", exported.folder, "--input", shards, "--output", tmp_path / "out")
    ended = edge(*batch, "--workers", 1, "--max-new-tokens", 2, "--trust-code")
    assert ended.status == 0, ended
    bench = ("bench", exported.folder, "--data", shards / "a.jsonl", "--runs", 30, "--min-time", 0)
    ended = edge(*bench, "--new-tokens", 2, "--json", tmp_path / "report.json", "--trust-code")
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert not report["results"][0].get("error"), ended


# -- the record ----------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.ts"
    path.write_bytes(b"code")
    return path


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


def test_the_record_is_of_the_content(file: Path, state: Path) -> None:
    assert not is_recorded(file)
    assert record_trust(file)
    assert is_recorded(file)
    file.write_bytes(b"other")
    assert not is_recorded(file)


def test_a_record_that_others_can_write_does_not_count(file: Path, state: Path) -> None:
    assert record_trust(file)
    (state / "edge" / "trusted").chmod(0o777)
    assert not is_recorded(file)


def test_a_home_that_cannot_be_written_is_no_error(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert not record_trust(file)
    assert not is_recorded(file)


def test_export_without_a_home_says_what_to_do(
    tmp_path: Path, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_letter_model(tmp_path / "model")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    output = tmp_path / "artifact"
    command = ("export", tmp_path / "model", "-f", "torchscript", "-q", "none", "-o", output)
    ended = edge(*command)
    assert ended.status == 0, ended
    assert "loading it needs --trust-code" in ended.out


def test_the_record_is_bounded(file: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.runtime.artifact.trust._MAX_RECORDS", 2)
    for number in range(4):
        file.write_bytes(bytes([number]))
        assert record_trust(file)
        folder = trusted_folder()
        assert folder is not None
        for path in folder.iterdir():  # each a second older than the next
            os.utime(path, (path.stat().st_mtime - 1,) * 2)
    assert len(list((state / "edge" / "trusted").iterdir())) == 2
    assert is_recorded(file)


def test_an_untrusted_archive_is_checked(attack: Path, edge: Edge) -> None:
    def change(folder: Path) -> None:
        data = (folder / "model.ts").read_bytes()
        (folder / "model.ts").write_bytes(data[: len(data) // 2])

    copy = forge(attack, attack.with_name("half"), change)
    ended = edge("verify", copy)
    assert ended.status == 2
    assert "damaged TorchScript file" in ended.err
    with pytest.raises(EdgeError):
        load(copy, trust_code=True)
