"""transformers' own models, and Optimum's, which have the same `generate`."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from typing import Any

from .spec import Generate, Spec

ENCODER, FIRST_STEP, NEXT_STEP = (
    "encoder_model.onnx",
    "decoder_model.onnx",
    "decoder_with_past_model.onnx",
)


def transformers_eager(dtype: str, *, quantized: bool = False) -> Callable[[Spec], Generate]:
    """transformers in `dtype`; `quantized`: its linear layers by torch's dynamic int8."""

    def load(spec: Spec) -> Generate:
        import torch
        from transformers import AutoModelForSeq2SeqLM

        torch.set_num_threads(spec.threads)
        model = AutoModelForSeq2SeqLM.from_pretrained(
            spec.model, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False
        ).eval()
        if quantized:
            model = torch.ao.quantization.quantize_dynamic(
                model, {torch.nn.Linear}, dtype=torch.qint8
            )
        return _by_generate(model)

    return load


def _by_generate(model: Any) -> Generate:
    """Greedy search by transformers' `generate`."""
    import torch

    def generate(input_ids: list[int], new_tokens: int) -> list[int]:
        ids = torch.tensor([input_ids])
        with torch.inference_mode():
            found = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                num_beams=1,
                do_sample=False,
                min_new_tokens=new_tokens,
                max_new_tokens=new_tokens,
            )
        return found[0, 1:].tolist()

    return generate


def export_optimum(spec: Spec) -> None:
    from optimum.exporters.onnx import main_export

    # Not merged: there Optimum takes d_model // num_heads as head size, wrong for FLAN-T5-small.
    main_export(
        str(spec.model),
        output=str(spec.cache),
        task="text2text-generation-with-past",
        no_post_process=True,
        do_validation=False,
    )


def quantize_optimum(spec: Spec) -> None:
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    on_arm = platform.machine().lower() in ("arm64", "aarch64")
    config = AutoQuantizationConfig.arm64 if on_arm else AutoQuantizationConfig.avx512_vnni
    for name in (ENCODER, FIRST_STEP, NEXT_STEP):
        quantizer = ORTQuantizer.from_pretrained(spec.base, file_name=name)
        quantizer.quantize(
            quantization_config=config(is_static=False, per_channel=False),
            save_dir=spec.cache,
            file_suffix="",
        )
    for path in spec.base.glob("*.json"):
        shutil.copy(path, spec.cache)


def optimum(spec: Spec) -> Generate:
    import onnxruntime
    import torch
    from optimum.onnxruntime import ORTModelForSeq2SeqLM

    torch.set_num_threads(spec.threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec.threads
    # Three pools that spin would take the cores from each other: this is Optimum at its best.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    model = ORTModelForSeq2SeqLM.from_pretrained(
        spec.cache,
        encoder_file_name=ENCODER,
        decoder_file_name=FIRST_STEP,
        decoder_with_past_file_name=NEXT_STEP,
        use_cache=True,
        use_merged=False,
        session_options=options,
    )
    return _by_generate(model)
