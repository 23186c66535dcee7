"""A file of rows to a file of answers, continued after a crash: python batch_job.py ARTIFACT IN OUT

The same as `edge run ARTIFACT --input IN --output OUT`, for a job that has more to do around it.
"""

import sys
from pathlib import Path

from edge.runtime.batch.job import BatchJob
from edge.runtime.batch.single_file import run_file


def main(artifact: str, source: str, output: str) -> None:
    job = BatchJob(Path(artifact), generate_kwargs={"max_new_tokens": 64})
    with job.load() as model:
        count = run_file(model, Path(source), Path(output), job, progress=show)
    print(f"{count} rows in {output}")


def show(done: int, total: int) -> None:
    print(f"{done} of {total}", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
