"""Our own artifacts, run by the same program, so that they pay the same price for it."""

from __future__ import annotations

from collections.abc import Sequence

from .spec import Generate, Spec

# Random weights leave no margin between tokens: what the check finds is kept in the manifest, but
# only what is no number refuses an artifact that is made to be timed.
_ANY_ERROR = 1e9


def publish(spec: Spec) -> None:
    """Make the artifact by the exporter that makes every other."""
    from edge.export.publish import ExportOptions, Publisher, Target
    from edge.export.source import SourceModel

    name, _, quantization = spec.target.partition("-")
    options = ExportOptions(max_error=_ANY_ERROR, mean_error=_ANY_ERROR)
    publisher = Publisher(SourceModel.open(spec.model), options)
    publisher.publish(Target(name, quantization), spec.cache)


def edge(spec: Spec) -> Generate:
    from edge.runtime.model import load

    model = load(spec.cache, threads=spec.threads)

    def generate(input_ids: list[int], new_tokens: int) -> Sequence[int]:
        answer = model.generate_tokens(
            input_ids,
            num_beams=1,
            do_sample=False,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            prompt_lookup_num_tokens=0,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
        )
        return answer.token_ids  # type: ignore[union-attr]

    return generate


def libraries(target: str) -> tuple[str, ...]:
    """What the engine imports, so that it is not counted as loading the model."""
    engine = {"gguf": "llama_cpp", "torchscript": "torch", "onnx": "onnxruntime"}
    name = target.partition("-")[0]
    return ("edge.runtime.model", engine.get(name, name))
