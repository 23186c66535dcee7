"""A LangChain LLM on an artifact: python langchain_llm.py ARTIFACT "some text"…"""

import sys
from typing import Any

from langchain_core.language_models.llms import LLM
from langchain_core.prompts import PromptTemplate
from pydantic import ConfigDict

from edge.runtime import Text2TextPipeline, pipeline


class EdgeLLM(LLM):
    """An LLM that runs a pipeline of edge.runtime."""

    text2text: Text2TextPipeline
    model_config = ConfigDict(arbitrary_types_allowed=True)

    @property
    def _llm_type(self) -> str:
        return "edge"

    def _call(
        self, prompt: str, stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> str:
        [answer] = self.text2text(prompt, stop_strings=stop, **kwargs)
        return str(answer["generated_text"])


def main(artifact: str, *texts: str) -> None:
    with pipeline("text2text-generation", artifact, num_beams=1) as pipe:
        chain = PromptTemplate.from_template("{question}") | EdgeLLM(text2text=pipe)
        for answer in chain.batch([{"question": text} for text in texts]):
            print(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
