"""OpenVINO baseline: Optimum's ONNX export, weights compressed by nncf, greedy loop in Python."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

from .bulk_answers import padded
from .hugging_face import ENCODER, FIRST_STEP, NEXT_STEP
from .spec import Generate, Spec

_GROUP_SIZE = 128  # weights that share a scale at 4 bits, as in edge's artifacts


def compress(bits: int) -> Callable[[Spec], None]:
    """Compress the weights of Optimum's export to `bits` (8 or 4) with nncf."""

    def prepare(spec: Spec) -> None:
        import nncf
        import openvino

        spec.cache.mkdir()
        core = openvino.Core()
        for name in (ENCODER, FIRST_STEP, NEXT_STEP):
            model = core.read_model(spec.base / name)
            if bits == 8 or name == ENCODER:  # the encoder is limited by arithmetic, not by memory
                model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
            else:
                model = nncf.compress_weights(
                    model,
                    mode=nncf.CompressWeightsMode.INT4_SYM,
                    group_size=_GROUP_SIZE,
                    all_layers=True,
                    advanced_parameters=nncf.AdvancedCompressionParameters(
                        # For matrices whose size is not a multiple of the group size.
                        group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST
                    ),
                )
            path = (spec.cache / name).with_suffix(".xml")
            openvino.save_model(model, path, compress_to_fp16=False)
        shutil.copy(spec.model / "config.json", spec.cache)

    return prepare


def load_openvino(spec: Spec) -> Generate:
    """Load encoder, first step and further steps; keys and values are not copied between steps."""
    import json

    import numpy as np
    import openvino as ov

    core = ov.Core()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": spec.threads}

    def request(name: str) -> Any:
        path = (spec.cache / name).with_suffix(".xml")
        return core.compile_model(path, "CPU", settings).create_infer_request()

    encoder, first = request(ENCODER), request(FIRST_STEP)
    following = request(NEXT_STEP)
    # Two requests alternate: the outputs of one are the inputs of the other.
    steps = (following, following.get_compiled_model().create_infer_request())
    config = json.loads((spec.cache / "config.json").read_text(encoding="utf-8"))
    start, eos = config["decoder_start_token_id"], config["eos_token_id"]
    taken = {port.any_name for port in following.get_compiled_model().inputs}
    presents = [
        port.any_name
        for port in first.get_compiled_model().outputs
        if port.any_name.startswith("present")
    ]
    pasts = {name: name.replace("present", "past_key_values") for name in presents}
    fixed = [name for name in presents if ".encoder." in name]
    moving = [name for name in presents if ".decoder." in name]

    def pick(step: Any) -> Any:
        logits = step.get_tensor("logits").data[:, -1]
        logits[:, eos] = -np.inf  # the answers must have exactly `new_tokens`
        return logits.argmax(axis=-1)

    def generate(rows: list[list[int]], new_tokens: int) -> list[list[int]]:
        ids, mask = (ov.Tensor(np.array(values)) for values in padded(rows))
        encoder.set_tensor("input_ids", ids)
        encoder.set_tensor("attention_mask", mask)
        encoder.infer()
        hidden = encoder.get_tensor("last_hidden_state")
        first.set_tensor("input_ids", ov.Tensor(np.full((len(rows), 1), start)))
        first.set_tensor("encoder_hidden_states", hidden)
        first.set_tensor("encoder_attention_mask", mask)
        first.infer()
        for step in steps:
            step.set_tensor("encoder_attention_mask", mask)
            if "encoder_hidden_states" in taken:
                step.set_tensor("encoder_hidden_states", hidden)
            for name in fixed:
                step.set_tensor(pasts[name], first.get_tensor(name))
        found, before = [pick(first)], first
        while len(found) < new_tokens:
            step = steps[len(found) % 2]
            step.set_tensor("input_ids", ov.Tensor(found[-1][:, None].copy()))
            for name in moving:
                step.set_tensor(pasts[name], before.get_tensor(name))
            step.infer()
            found.append(pick(step))
            before = step
        answers: list[list[int]] = np.stack(found, axis=1).tolist()
        return answers

    return generate
