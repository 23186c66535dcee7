"""The GGUF exporter: every kind of T5 against transformers, the vocabulary against the source."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from edge.export.gguf.exporter import GgufExporter
from edge.export.gguf.position_buckets import bias_tables
from edge.export.position_bias import buckets as model_buckets
from edge.export.publish import ExportOptions, Publisher, Target
from edge.export.source import SourceModel
from edge.runtime import load
from edge.runtime.engines.gguf.buckets import llama_buckets
from edge.runtime.engines.gguf.compatibility import POSITION_LIMIT
from edge.runtime.engines.gguf.header import read_header
from edge.runtime.engines.gguf.library import llama_library
from edge.runtime.errors import ArtifactError, ModelError, UsageError
from samples import save_letter_model

T5_TOKENIZER = Path(__file__).resolve().parents[4] / "shared" / "t5-tokenizer" / "tokenizer.json"
F32 = 0
pytestmark = pytest.mark.usefixtures("one_torch_thread")


def log_probs(source: SourceModel, ids: list[int], target: list[int]) -> np.ndarray:
    """transformers' log-probability of each target token."""
    with torch.no_grad():
        logits = source.torch_model(
            input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([[0, *target[:-1]]])
        ).logits[0]
    return torch.log_softmax(logits, -1)[range(len(target)), target].numpy()


def random_ids(count: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(3, 98, size=count).tolist()


KINDS = {
    "tied-scaled-gated": {},
    "untied-unscaled-gated": {"tied": False, "scaled": False},
    "tied-unscaled-relu": {"scaled": False, "feed_forward_proj": "relu"},
    "untied-scaled-deep-decoder": {"tied": False, "num_layers": 1, "num_decoder_layers": 3},
}


@pytest.mark.parametrize("kind", KINDS)
def test_f32_answers_as_the_source(kind: str, tmp_path: Path) -> None:
    source = save_letter_model(tmp_path / "model", **KINDS[kind])
    # The publisher's parity check requires identical greedy tokens.
    exported = Publisher(source).publish(Target("gguf", "f32"), tmp_path / "out")
    assert exported.parity.max_error < 5e-3
    with load(tmp_path / "out") as model:
        ids, target = random_ids(30, 1), random_ids(20, 2)
        found = model.score_tokens([ids], [target])[0]
    np.testing.assert_allclose(found, log_probs(source, ids, target), atol=5e-3)


@pytest.mark.parametrize("quantization", ["f16", "q8_0", "q4_0", "q4_k_m"])
def test_quantized_artifacts_stay_close(quantization: str, tmp_path: Path) -> None:
    source = save_letter_model(tmp_path / "model")
    # Random weights are harder to quantize than trained ones; the limit is for this test only.
    options = ExportOptions(mean_error=0.5)
    exported = Publisher(source, options).publish(Target("gguf", quantization), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md", "edge.json", "model.gguf", "tokenizer.json",
    ]  # fmt: skip
    header = read_header(tmp_path / "out" / "model.gguf")
    biases = [tensor for name, tensor in header.tensors.items() if "attn_rel_b" in name]
    assert [tensor.type for tensor in biases] == [F32, F32]
    if quantization == "f16":
        downs = [tensor.type for name, tensor in header.tensors.items() if "ffn_down" in name]
        assert set(downs) == {F32}
        assert exported.parity.max_error < 5e-2


def test_rows_that_no_block_divides(tmp_path: Path) -> None:
    """llama.cpp keeps such weights at 16 bits."""
    source = save_letter_model(tmp_path / "model", d_model=40, d_ff=50, d_kv=12)
    for quantization in ("q8_0", "q4_k_m"):
        out = tmp_path / quantization
        exported = Publisher(source).publish(Target("gguf", quantization), out)
        assert exported.parity.mean_error < 3e-2


@pytest.mark.parametrize(("buckets", "distance"), [(32, 64), (32, 20), (8, 20), (16, 100)])
def test_another_maximum_distance(buckets: int, distance: int, tmp_path: Path) -> None:
    changes = {
        "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": distance,
    }
    source = save_letter_model(tmp_path / "model", **changes)
    Publisher(source).publish(Target("gguf", "f32"), tmp_path / "out")
    with load(tmp_path / "out") as model:
        ids, target = random_ids(400, 3), random_ids(300, 4)
        found = model.score_tokens([ids], [target])[0]
    np.testing.assert_allclose(found, log_probs(source, ids, target), atol=1e-2)


def test_a_maximum_distance_beyond_llama_cpps(tmp_path: Path) -> None:
    source = save_letter_model(tmp_path / "model", relative_attention_max_distance=300)
    Publisher(source).publish(Target("gguf", "f32"), tmp_path / "out")
    header = read_header(tmp_path / "out" / "model.gguf")
    assert header.metadata[POSITION_LIMIT] == 4096
    with load(tmp_path / "out") as model:
        ids, target = random_ids(500, 3), random_ids(400, 4)
        found = model.score_tokens([ids], [target])[0]
    np.testing.assert_allclose(found, log_probs(source, ids, target), atol=1e-2)
    options = ExportOptions(max_input_tokens=5000)
    with pytest.raises(ArtifactError, match="fewer than 5000 tokens"):
        Publisher(source, options).publish(Target("gguf", "f32"), tmp_path / "longer")
    assert not (tmp_path / "longer").exists()


def test_t5s_buckets_are_left_alone(tmp_path: Path) -> None:
    shape = save_letter_model(tmp_path / "model").architecture
    bias = np.arange(96, dtype=np.float32).reshape(32, 3)
    tables = bias_tables(shape, bias, bias + 1)
    np.testing.assert_array_equal(tables.decoder, bias + 1)
    assert tables.longest is None
    for bidirectional in (True, False):
        np.testing.assert_array_equal(
            llama_buckets(32, 3000, bidirectional=bidirectional),
            model_buckets(-np.arange(3000), shape, bidirectional=bidirectional),
        )


def test_an_activation_that_llama_cpp_lacks(tmp_path: Path) -> None:
    source = save_letter_model(tmp_path / "model", feed_forward_proj="gated-silu")
    with pytest.raises(ModelError, match="relu or gated gelu_new only, not with gated silu"):
        GgufExporter.check_architecture(source)


def test_matrices_that_no_block_divides_are_named(tmp_path: Path) -> None:
    heads = {"num_heads": 4, "d_kv": 16}
    wide = save_letter_model(tmp_path / "wide", d_model=64, d_ff=96, **heads)
    odd = save_letter_model(tmp_path / "odd", d_model=72, d_ff=96, **heads)
    assert GgufExporter.notes(wide, "q8_0") == ()
    assert GgufExporter.notes(odd, "f16") == ()
    [note] = GgufExporter.notes(odd, "q8_0")
    assert "matrices are in 16 bits: their rows are no multiple of 32" in note
    exported = Publisher(odd).publish(Target("gguf", "q8_0"), tmp_path / "out")
    # The other is on the length of answers. Conditioned: with a head of its own.
    [note] = (one for one in exported.warnings if "no multiple of" in one)
    tensors = GGUFReader(exported.folder / "model.gguf").tensors
    kinds = Counter(tensor.tensor_type.name for tensor in tensors)
    assert note.startswith(f"{kinds['F16']} of {kinds['F16'] + kinds['Q8_0']} matrices")


def test_weights_beyond_the_scales_of_blocks(tmp_path: Path, capfd: Any) -> None:
    source = save_letter_model(tmp_path / "model")
    tensor = source.tensor
    huge = "encoder.block.0.layer.1.DenseReluDense.wo.weight"
    source.tensor = lambda name: tensor(name) * (1e10 if name == huge else 1)  # type: ignore[method-assign]
    folder = tmp_path / "out"
    folder.mkdir()
    capfd.readouterr()
    with pytest.raises(ModelError, match=rf"{huge} holds .*e\+\d+, and the blocks of gguf end at"):
        GgufExporter().write(source, "q8_0", folder)
    assert capfd.readouterr().err == ""
    assert not list(folder.iterdir())


def test_names_of_quantizations() -> None:
    assert GgufExporter.resolve("auto") == "q8_0"
    assert GgufExporter.resolve("none") == "f32"
    assert GgufExporter.resolve("INT8") == "q8_0"
    assert GgufExporter.resolve("int4") == "q4_k_m"
    assert set(GgufExporter.tolerances) == set(GgufExporter.quantizations)
    with pytest.raises(UsageError, match="Did you mean 'q8_0'"):
        GgufExporter.resolve("q8_1")


def test_a_weight_that_is_not_finite(tmp_path: Path) -> None:
    source = save_letter_model(tmp_path / "model")
    tensor = source.tensor

    def damaged(name: str) -> np.ndarray:
        values = tensor(name).copy()
        if name.endswith("0.SelfAttention.q.weight"):
            values[0, 0] = np.nan
        return values

    source.tensor = damaged  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"SelfAttention\.q\.weight holds values"):
        GgufExporter().write(source, "q8_0", tmp_path)
    assert not (tmp_path / "unquantized.gguf").exists()


_FULL_DISK = """
import resource, sys
from pathlib import Path
from edge.export.gguf.exporter import GgufExporter
from edge.export.source import SourceModel
from edge.runtime.errors import EdgeError
source = SourceModel.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    GgufExporter().write(source, "q8_0", Path(sys.argv[2]))
except EdgeError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX's")
@pytest.mark.parametrize("limit", [50_000, 10_000_000])
def test_a_file_that_may_not_grow(limit: int, tmp_path: Path) -> None:
    """Once while the float32 file is written, once while llama.cpp writes its file."""
    save_letter_model(tmp_path / "model", vocab_size=3000)
    out = tmp_path / "out"
    out.mkdir()
    if limit == 10_000_000:  # the float32 file fits, so llama.cpp's must be kept from growing
        (out / "model.gguf").mkdir()
    run = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path / "model"), str(out), str(limit)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert run.returncode == 0, run.stderr
    expected = "larger than the limit" if limit == 50_000 else "could not quantize to q8_0"
    assert expected in run.stdout
    assert len(run.stdout.strip().splitlines()) == 1
    assert not (out / "unquantized.gguf").exists()


# -- vocabulary ----------------------------------------------------------------------------------

SENTENCES = [
    "What is the capital of France?",
    "translate English to German: That is good.",
    "  two  spaces   and more ",
    "São Paulo, Zürich — naïve café…",
    "３ ｆｕｌｌ－ｗｉｄｔｈ ﬁne",
    "日本の首都はどこですか",
    "a <extra_id_0> b <extra_id_99>.",
    "x",
]


def llama_tokens(path: Path, text: str) -> list[int]:
    library = llama_library()
    params = library.llama_model_default_params()
    params.vocab_only = True
    model = library.llama_model_load_from_file(str(path).encode(), params)
    assert model
    try:
        buffer = (library.llama_token * 512)()
        pointer = ctypes.cast(buffer, ctypes.POINTER(library.llama_token))
        vocabulary = library.llama_model_get_vocab(model)
        data = text.encode()
        count = library.llama_tokenize(vocabulary, data, len(data), pointer, 512, True, True)
        return list(buffer[:count])
    finally:
        library.llama_model_free(model)


@pytest.mark.skipif(not T5_TOKENIZER.is_file(), reason="T5's tokenizer is not available")
def test_llama_cpp_tokenizes_as_tokenizer_json(tmp_path: Path) -> None:
    save_letter_model(tmp_path / "model", vocab_size=32128)
    (tmp_path / "model" / "tokenizer.json").write_bytes(T5_TOKENIZER.read_bytes())
    GgufExporter().write(SourceModel.open(tmp_path / "model"), "q8_0", tmp_path)
    tokenizer = Tokenizer.from_file(str(T5_TOKENIZER))
    for text in SENTENCES:
        assert llama_tokens(tmp_path / "model.gguf", text) == tokenizer.encode(text).ids, text


def test_a_tokenizer_that_is_not_unigram(tmp_path: Path) -> None:
    """llama.cpp can't use its pieces, but the model runs."""
    save_letter_model(tmp_path / "model")
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    source = SourceModel.open(tmp_path / "model")
    Publisher(source).publish(Target("gguf", "q8_0"), tmp_path / "out")
    metadata = read_header(tmp_path / "out" / "model.gguf").metadata
    assert metadata["tokenizer.ggml.model"] == "none"


def test_a_malformed_tokenizer(tmp_path: Path) -> None:
    source = save_letter_model(tmp_path / "model")
    path = tmp_path / "model" / "tokenizer.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["model"]["vocab"][5] = ["lonely"]
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ModelError, match="malformed"):
        GgufExporter().write(source, "f32", tmp_path)
