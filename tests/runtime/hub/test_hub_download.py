"""Downloads through the real client from a hub on the loopback, and its failures."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_samples import FLAN_T5_SMALL, FLAN_T5_SMALL_FILES, FOREIGN_WEIGHTS
from hub_server import READER, WRITER, HubServer

HubRun = Callable[..., Any]

# Fetches each argument, NAME or NAME@REVISION, and prints the folder or the error of each.
FETCH = """
import json, sys, time
from edge.runtime.errors import EdgeError
from edge.runtime.hub import Repository, fetch
found = []
for argument in sys.argv[1:]:
    name, _, revision = argument.partition("@")
    started = time.monotonic()
    try:
        result = str(fetch(Repository(name, revision or None)))
    except EdgeError as error:
        result = f"{type(error).__name__}: {error}"
    found.append([result, time.monotonic() - started])
print(json.dumps(found))
"""


@pytest.fixture
def fetch(hub_run: HubRun) -> Callable[..., list[str]]:
    """The folder, or the error, of each id, fetched in one new process."""

    def call(*ids: str, within: float = 60.0, **variables: str) -> list[str]:
        ended = hub_run(*ids, code=FETCH, **variables)
        assert ended.status == 0, ended.err
        call.err = ended.err  # type: ignore[attr-defined]
        pairs = json.loads(ended.out)
        for result, seconds in pairs:
            assert seconds < within, result
        return [result for result, _ in pairs]

    return call


@pytest.fixture
def flan(hub: HubServer) -> dict[str, bytes]:
    """Files of a repository with flan-t5-small's names; the weights are longer than one packet."""
    files = {name: f"content of {name} ".encode() * 40 for name in FLAN_T5_SMALL_FILES}
    files["model.safetensors"] = bytes(range(256)) * 4000
    files["onnx/model.safetensors"] = b"of another library"
    hub.add(FLAN_T5_SMALL, files)
    return files


def content_of(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_only_what_is_needed_is_fetched(
    hub: HubServer, flan: dict[str, bytes], fetch: Callable[..., list[str]]
) -> None:
    [folder] = fetch(FLAN_T5_SMALL, HF_TOKEN=READER)
    wanted = FLAN_T5_SMALL_FILES - FOREIGN_WEIGHTS - {".gitattributes"}
    assert content_of(folder) == {name: flan[name] for name in wanted}
    assert Path(folder).name == hub.repositories["model", FLAN_T5_SMALL].refs["main"]
    assert hub.fetched() == wanted
    for asked in hub.asked:
        assert not {asked.path.rpartition("/")[2]} & FOREIGN_WEIGHTS
        assert "/onnx/" not in asked.path
        assert asked.host == "127.0.0.1" or not asked.token, "the token left the hub"
    assert any(asked.token for asked in hub.asked)


def test_the_second_time_nothing_is_fetched(
    hub: HubServer, flan: dict[str, bytes], fetch: Callable[..., list[str]]
) -> None:
    repository = hub.repositories["model", FLAN_T5_SMALL]
    first = repository.refs["main"]
    [folder] = fetch(FLAN_T5_SMALL)
    hub.asked.clear()
    # The commit itself needs no request; a branch needs to be looked up.
    assert fetch(f"{FLAN_T5_SMALL}@{first}", FLAN_T5_SMALL) == [folder, folder]
    assert hub.fetched() == set()
    hub.asked.clear()
    assert fetch(f"{FLAN_T5_SMALL}@{first}") == [folder]
    assert hub.asked == []
    # Offline because the user says so: silently. Because the hub is gone: said.
    assert fetch(FLAN_T5_SMALL, HF_HUB_OFFLINE="1") == [folder]
    assert hub.asked == []
    assert fetch.err == ""  # type: ignore[attr-defined]
    hub.stop()
    assert fetch(FLAN_T5_SMALL, within=5) == [folder]
    [line] = fetch.err.splitlines()  # type: ignore[attr-defined]
    assert f"using the copy of {FLAN_T5_SMALL} in the cache, commit {first}" in line


def test_branches_tags_and_commits(
    hub: HubServer, flan: dict[str, bytes], fetch: Callable[..., list[str]]
) -> None:
    repository = hub.repositories["model", FLAN_T5_SMALL]
    first = repository.refs["v1.0"] = repository.refs["main"]
    second = repository.commit({**flan, "config.json": b"{}"}, "second")
    third = repository.commit({**flan, "config.json": b"[]"}, "third", "next")
    found = fetch(
        *(FLAN_T5_SMALL + revision for revision in ("", "@v1.0", "@next", f"@{first}", "@v9")),
    )
    assert [Path(one).name for one in found[:4]] == [second, first, third, first]
    assert found[4].startswith(f"ModelError: {FLAN_T5_SMALL}@v9: no such branch, tag or commit")


def test_refusals_of_the_hub(hub: HubServer, fetch: Callable[..., list[str]]) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"weights"}
    hub.add("meta/gated", files, gated=True)
    hub.add("meta/private", files, private=True)
    names = ("meta/gated", "meta/private", "meta/missing", "missing")
    gated, private, missing, bare = fetch(*names)
    assert "meta/gated: gated. Ask for access at http://127.0.0.1" in gated
    assert "log in with `hf auth login` or set HF_TOKEN" in gated
    for message in (private, missing, bare):
        assert "no such folder, and no such model at http://127.0.0.1" in message
        assert "HF_TOKEN" in message
    gated, private, *_ = fetch(*names, HF_TOKEN=READER)
    assert "gated, and your account has no access. Ask for it at http://127.0.0.1" in gated
    assert "no such model" in private
    assert all("/snapshots/" in one for one in fetch(*names[:2], HF_TOKEN=WRITER))
    # What was fetched stays usable when access is taken away.
    assert "/snapshots/" in fetch("meta/private")[0]


def test_a_wrong_token_and_a_broken_hub(hub: HubServer, fetch: Callable[..., list[str]]) -> None:
    hub.add("me/tiny", {"config.json": b"{}"})
    [message] = fetch("me/tiny", HF_TOKEN="hf_secret_of_mine")
    assert "does not accept the token" in message
    assert "secret" not in message + fetch.err  # type: ignore[attr-defined]
    hub.down = True
    [message] = fetch("me/tiny", within=5)
    assert "me/tiny: the hub answered with status 503" in message


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port whose connections are never established: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = []
        for _ in range(3):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            waiting.append(client)
        time.sleep(0.1)
        yield port
        for client in waiting:
            client.close()


def test_a_hub_that_can_not_be_reached(
    hub: HubServer, fetch: Callable[..., list[str]], silent_port: int
) -> None:
    """A closed port, a host that swallows packets and a name that does not resolve."""
    hub.stop()
    for endpoint in (hub.endpoint, f"http://127.0.0.1:{silent_port}", "http://no-such.invalid"):
        [message] = fetch("me/tiny", HF_ENDPOINT=endpoint, within=5.5)
        assert "me/tiny: no such folder, no complete copy in the cache" in message
        assert f"and {endpoint} can't be reached (" in message
        assert "\n" not in message


def test_what_is_no_hub(hub: HubServer, fetch: Callable[..., list[str]]) -> None:
    [message] = fetch("me/tiny", HF_ENDPOINT=f"{hub.endpoint}/elsewhere")
    assert f"{hub.endpoint}/elsewhere answers as no hub does (status 404)" in message


def test_a_slow_hub_is_waited_for(
    hub: HubServer, flan: dict[str, bytes], fetch: Callable[..., list[str]]
) -> None:
    hub.delay = 0.6
    [folder] = fetch(FLAN_T5_SMALL)
    assert (Path(folder) / "model.safetensors").read_bytes() == flan["model.safetensors"]


def test_a_broken_off_download_resumes(
    hub: HubServer, flan: dict[str, bytes], fetch: Callable[..., list[str]]
) -> None:
    """The client keeps whole blocks of 10 MiB."""
    weights = bytes(range(250)) * 96_000
    hub.add(FLAN_T5_SMALL, {**flan, "model.safetensors": weights})
    hub.cut, hub.cuts = {"model.safetensors": 11_000_000}, 2
    [folder] = fetch(FLAN_T5_SMALL)
    assert (Path(folder) / "model.safetensors").read_bytes() == weights
    parts = [a.range for a in hub.asked if a.path.startswith("/cdn/") and "safetensors" in a.path]
    assert parts == [None, f"bytes={10 << 20}-", f"bytes={20 << 20}-"]


@pytest.mark.slow
def test_a_download_without_end_leaves_no_model(
    hub: HubServer, flan: dict[str, bytes], fetch: Callable[..., list[str]], tmp_path: Path
) -> None:
    """The server breaks every answer and then goes: the next run fetches the rest."""
    hub.cut, hub.cuts = {"model.safetensors": 0}, 1000
    [message] = fetch(FLAN_T5_SMALL)
    assert f"{FLAN_T5_SMALL}: the connection to http://127.0.0.1" in message
    assert "Run the command again; complete files are kept" in message
    [message] = fetch(FLAN_T5_SMALL, HF_HUB_OFFLINE="1")
    assert "no complete copy in the cache" in message
    hub.cuts = 0
    hub.asked.clear()
    [folder] = fetch(FLAN_T5_SMALL)
    assert (Path(folder) / "model.safetensors").read_bytes() == flan["model.safetensors"]
    assert hub.fetched() == {"model.safetensors"}
    assert not [p for p in (tmp_path / "hf").rglob("*.incomplete") if os.path.isfile(p)]
