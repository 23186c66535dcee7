"""A Haystack component on an artifact: python haystack_component.py ARTIFACT "some text"…"""

import sys
from typing import Any

from haystack import Pipeline, component

from edge.runtime import pipeline


@component
class EdgeRewriter:
    """Rewrites queries with a pipeline of edge.runtime, before they reach a retriever."""

    def __init__(self, artifact: str, **arguments: Any) -> None:
        self.pipe = pipeline("text2text-generation", artifact, **arguments)

    @component.output_types(queries=list[str])
    def run(self, queries: list[str]) -> dict[str, list[str]]:
        """The rewritten queries, in order."""
        return {"queries": [one["generated_text"] for one in self.pipe(queries)]}


def main(artifact: str, *texts: str) -> None:
    search = Pipeline()
    search.add_component("rewriter", EdgeRewriter(artifact, num_beams=1))
    print(*search.run({"rewriter": {"queries": list(texts)}})["rewriter"]["queries"], sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
