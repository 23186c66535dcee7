"""Artifacts of edge, run by the same program as the baselines, with the same overhead."""

from __future__ import annotations

from collections.abc import Sequence

from .spec import Generate, Spec

# Random weights leave no margin between tokens, so the parity check is recorded but does not
# refuse an artifact, unless its outputs are not numbers.
_ANY_ERROR = 1e9


def publish(spec: Spec) -> None:
    """Export the artifact of `spec.target` as `edge export` does."""
    from edge.export.publish import ExportOptions, Publisher, Target
    from edge.export.source import SourceModel

    name, _, quantization = spec.target.partition("-")
    options = ExportOptions(max_error=_ANY_ERROR, mean_error=_ANY_ERROR)
    publisher = Publisher(SourceModel.open(spec.model), options)
    publisher.publish(Target(name, quantization), spec.cache)


def load_artifact(spec: Spec) -> Generate:
    """Load the artifact; plain greedy search from token ids to token ids."""
    from edge.runtime.model import load

    model = load(spec.cache, threads=spec.threads)

    def generate(rows: list[list[int]], new_tokens: int) -> list[Sequence[int]]:
        answers = model.generate_tokens(
            rows,
            batch_size=len(rows),
            num_beams=1,
            do_sample=False,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            prompt_lookup_num_tokens=0,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
        )
        assert isinstance(answers, list)
        return [answer.token_ids for answer in answers]

    return generate


def libraries_of(target: str) -> tuple[str, ...]:
    """The modules that the engine imports, so that importing is not counted as loading."""
    engine = {"gguf": "llama_cpp", "torchscript": "torch", "onnx": "onnxruntime"}
    name = target.partition("-")[0]
    return ("edge.runtime.model", engine.get(name, name))
