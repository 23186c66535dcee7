"""A shard that fails costs no worker."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from edge.runtime.batch.job import BatchJob
from edge.runtime.batch.local_pool import LocalPool
from edge.runtime.batch.pool import ShardFailed
from edge.runtime.batch.shard_worker import try_shard
from edge.runtime.batch.shards import OutputFolder, Shard, ShardFinished


def test_a_source_that_is_gone_fails_alone(artifacts: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"input": "who uh who made it?"}\n')
    shards = [Shard("gone.jsonl", tmp_path / "gone.jsonl"), Shard("rows.jsonl", rows)]
    job = BatchJob(artifacts / "onnx-int8")
    pool = LocalPool(job, OutputFolder(tmp_path / "out"), workers=1)
    events = {event.name: event for event in pool.run(shards) if hasattr(event, "name")}
    failed, finished = events["gone.jsonl"], events["rows.jsonl"]
    assert isinstance(finished, ShardFinished)
    assert finished.rows == 1
    assert isinstance(failed, ShardFailed)
    assert f"{tmp_path / 'gone.jsonl'}: FileNotFoundError: " in str(failed.error)


def test_no_memory_ends_the_worker(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"input": "who uh who made it?"}\n')
    model = Mock()
    model.generate_each.side_effect = MemoryError
    with pytest.raises(MemoryError):
        try_shard(
            model,
            BatchJob(tmp_path),
            Shard("rows.jsonl", rows),
            OutputFolder(tmp_path / "out"),
            lambda rows: None,
        )
