"""Data sets of the hub, through the real `datasets` library."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hub_samples import question_rows
from hub_server import HubServer

HubRun = Callable[..., Any]

READ = """
import json, sys, time
from edge.runtime.errors import EdgeError
from edge.runtime.rows import read_rows, split_file
for argument in sys.argv[1:]:
    started = time.monotonic()
    try:
        files = {name: split_file(argument, name) for name in ("train", "dev", "test")}
        splits = {name: len(read_rows(file)) for name, file in files.items() if file}
        found = [splits, read_rows(argument + "#train")[0].target]
    except EdgeError as error:
        found = [type(error).__name__, str(error)]
    print(json.dumps([found, time.monotonic() - started]))
"""


def test_a_data_set_by_id(hub: HubServer, hub_run: HubRun) -> None:
    files = {
        "README.md": b"---\nlicense: mit\n---\n",
        "train.jsonl": question_rows(20),
        "validation.jsonl": question_rows(5, first=50),
    }
    hub.add("me/questions", files, kind="dataset")
    hub.add("me/secret", files, kind="dataset", private=True)
    ended = hub_run("hub:me/questions", "hub:me/secret", "hub:me/missing", code=READ)
    assert ended.status == 0, ended.err
    first, secret, missing = (json.loads(line)[0] for line in ended.out.splitlines())
    assert first == [{"train": 20, "dev": 5}, "what is the number 0"]
    for kind, message in (secret, missing):
        assert kind == "DataError"
        assert "the data set can't be read from the hub" in message
    # Afterwards the cache answers, offline and with the hub gone, without a minute of retries.
    hub.stop()
    for variables in ({"HF_HUB_OFFLINE": "1"}, {}):
        ended = hub_run("hub:me/questions", "hub:me/missing", code=READ, **variables)
        assert ended.status == 0, ended.err
        (first, seconds), (missing, _) = (json.loads(line) for line in ended.out.splitlines())
        assert first == [{"train": 20, "dev": 5}, "what is the number 0"]
        assert seconds < 10
        assert missing[0] == "DataError"
        assert "the data set is not in the cache" in missing[1]
        if not variables:
            assert f"{hub.endpoint} can't be reached" in missing[1]
