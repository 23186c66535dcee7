"""Baselines with the `generate` of transformers: transformers itself and Optimum."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from typing import Any

from .bulk_answers import padded
from .spec import Generate, Spec

ENCODER, FIRST_STEP, NEXT_STEP = (
    "encoder_model.onnx",
    "decoder_model.onnx",
    "decoder_with_past_model.onnx",
)


def load_transformers(dtype: str, *, quantized: bool = False) -> Callable[[Spec], Generate]:
    """Load with transformers in `dtype`; `quantized` adds PyTorch's dynamic int8 quantization."""

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

    def generate(rows: list[list[int]], new_tokens: int) -> list[list[int]]:
        ids, mask = (torch.tensor(values) for values in padded(rows))
        with torch.inference_mode():
            found = model.generate(
                input_ids=ids,
                attention_mask=mask,
                num_beams=1,
                do_sample=False,
                min_new_tokens=new_tokens,
                max_new_tokens=new_tokens,
            )
        answers: list[list[int]] = found[:, 1:].tolist()
        return answers

    return generate


def export_optimum(spec: Spec) -> None:
    """Export the model to ONNX with Optimum."""
    from optimum.exporters.onnx import main_export

    # In the merged decoder, Optimum takes d_model // num_heads as head size, which is wrong for
    # FLAN-T5-small.
    main_export(
        str(spec.model),
        output=str(spec.cache),
        task="text2text-generation-with-past",
        no_post_process=True,
        do_validation=False,
    )


def quantize_optimum(spec: Spec) -> None:
    """Quantize Optimum's export to dynamic int8 with its configuration for this processor."""
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


def load_optimum(spec: Spec) -> Generate:
    """Load Optimum's three graphs: encoder, first step and further steps."""
    import onnxruntime
    import torch
    from optimum.onnxruntime import ORTModelForSeq2SeqLM

    torch.set_num_threads(spec.threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec.threads
    # The thread pools of three sessions slow each other down if they spin.
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
