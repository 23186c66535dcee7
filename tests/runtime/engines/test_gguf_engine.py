"""The GGUF engine and the reader of GGUF headers, which must survive any file."""

from __future__ import annotations

import dataclasses
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from edge.export.publish import ExportOptions, Publisher, Target
from edge.export.source import SourceModel
from edge.runtime import load
from edge.runtime.artifact import Artifact
from edge.runtime.artifact.manifest import Limits
from edge.runtime.engines.gguf.compatibility import check_model
from edge.runtime.engines.gguf.engine import GgufEngine
from edge.runtime.engines.gguf.header import read_header
from edge.runtime.errors import ArtifactError, EdgeError, InputTooLongError, UnsupportedError
from edge.runtime.generation import Generation
from edge.runtime.model import Model
from samples import save_letter_model

ROWS = [[5, 1], [7, 8, 9, 10, 11, 12, 1], [1], [20, 30, 1], list(range(3, 63))]
pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
    return save_letter_model(
        tmp_path_factory.mktemp("model"),
        vocab_size=120,  # of which 100 have a piece
        relative_attention_max_distance=64,
        seed=11,
        tied=False,  # with a tied head every answer is the start token, again and again
        scaled=False,
    )


@pytest.fixture(scope="module")
def folder(source: SourceModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("artifact") / "f32"
    Publisher(source).publish(Target("gguf", "f32"), output)
    return output


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Model]:
    with load(folder) as opened:
        yield opened


def generate(model: Model, rows: list[list[int]], **options: object) -> list[Generation]:
    found = model.generate_tokens(rows, **options)
    assert isinstance(found, list)
    return found


def tokens(found: list[Generation]) -> list[tuple[int, ...]]:
    return [generation.token_ids for generation in found]


# -- the engine ----------------------------------------------------------------------------------


@pytest.mark.parametrize("least", [0, 12])
def test_greedy_is_transformers(source: SourceModel, model: Model, least: int) -> None:
    found = generate(model, ROWS, max_new_tokens=16, min_new_tokens=least)
    nameless = list(range(100, 120))  # ids without a piece
    for ids, generation in zip(ROWS, found, strict=True):
        expected = source.torch_model.generate(
            input_ids=torch.tensor([ids]),
            max_new_tokens=16,
            min_new_tokens=least,
            suppress_tokens=nameless,
            do_sample=False,
        )[0].tolist()[1:]
        ended = expected[-1] == 1
        assert list(generation.token_ids) == (expected[:-1] if ended else expected)
        assert generation.finish_reason == ("eos" if ended else "length")
        assert len(generation.token_ids) >= least


def test_log_probabilities_are_transformers(source: SourceModel, model: Model) -> None:
    """Targets longer than one chunk of scoring, and one of a single token."""
    random = np.random.default_rng(5)
    targets = [random.integers(3, 99, size=size).tolist() for size in (1, 64, 65, 3, 200)]
    for ids, target, found in zip(ROWS, targets, model.score_tokens(ROWS, targets), strict=True):
        with torch.no_grad():
            logits = source.torch_model(
                input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([[0, *target[:-1]]])
            ).logits[0]
        expected = torch.log_softmax(logits, -1)[range(len(target)), target].numpy()
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=5e-3)


def test_a_batch_answers_as_single_rows(model: Model) -> None:
    together = generate(model, ROWS, max_new_tokens=12)
    assert tokens(together) == [
        generate(model, [row], max_new_tokens=12)[0].token_ids for row in ROWS
    ]
    target = [[4, 5, 6, 1]] * len(ROWS)
    for row, scores in zip(ROWS, model.score_tokens(ROWS, target), strict=True):
        np.testing.assert_array_equal(scores, model.score_tokens([row], [[4, 5, 6, 1]])[0])


def test_scores_agree_with_generation(model: Model) -> None:
    found = generate(model, [ROWS[1]], max_new_tokens=9, min_new_tokens=9)[0]
    scores = model.score_tokens([ROWS[1]], [list(found.token_ids)])[0]
    assert found.score == pytest.approx(scores.mean(), abs=1e-4)


def test_sampling_is_repeatable(model: Model) -> None:
    options = {"do_sample": True, "temperature": 3.0, "max_new_tokens": 20, "min_new_tokens": 20}
    first = generate(model, ROWS, seed=3, **options)
    assert tokens(generate(model, ROWS, seed=3, **options)) == tokens(first)
    assert tokens(generate(model, ROWS, seed=4, **options)) != tokens(first)
    assert generate(model, [ROWS[3]], seed=3, **options)[0].token_ids == first[3].token_ids


def test_several_samples_of_a_row(model: Model) -> None:
    options = {"do_sample": True, "temperature": 3.0, "num_return_sequences": 3, "seed": 1}
    best = generate(model, [ROWS[1]], max_new_tokens=15, min_new_tokens=15, **options)[0]
    all_three = [best, *best.alternatives]
    assert len({one.token_ids for one in all_three}) == 3
    assert [one.score for one in all_three] == sorted((o.score for o in all_three), reverse=True)


def test_beams_are_refused(model: Model) -> None:
    with pytest.raises(UnsupportedError, match="onnx, ctranslate2 or torchscript"):
        generate(model, ROWS, num_beams=2)


def test_the_callback_sees_and_ends_rows(model: Model) -> None:
    seen: list[tuple[int, int]] = []

    def callback(row: int, token: int) -> bool:
        seen.append((row, token))
        return row == 1

    options = dataclasses.replace(model.defaults, max_new_tokens=3, min_new_tokens=3)
    found = model.engine.generate(ROWS[:2], options, callback)
    assert [hypothesis[0].finish_reason for hypothesis in found] == ["length", "stop"]
    assert seen[:3] == [(0, token) for token in found[0][0].token_ids]
    assert seen[3:] == [(1, found[1][0].token_ids[0])]


def test_the_longest_input_and_output(source: SourceModel, folder: Path, model: Model) -> None:
    longest = [3 + i % 90 for i in range(512)]
    found = generate(model, [longest], max_new_tokens=512, min_new_tokens=512)[0]
    assert len(found.token_ids) == 512
    assert model.score_tokens([longest], [longest])[0].shape == (512,)
    with pytest.raises(InputTooLongError):
        model.score_tokens([longest], [[*longest, 4]])
    with pytest.raises(InputTooLongError):
        model.score_tokens([[*longest, 4]], [[4]])


def test_two_models_at_a_time(folder: Path, model: Model) -> None:
    rows = ROWS[:2]
    expected = tokens(generate(model, rows, max_new_tokens=4))
    with load(folder, threads=2) as other:
        assert other.engine.threads == 2
        assert tokens(generate(other, rows, max_new_tokens=4)) == expected
        assert tokens(generate(model, rows, max_new_tokens=4)) == expected
    assert tokens(generate(model, rows, max_new_tokens=4)) == expected


def test_closing(folder: Path) -> None:
    engine = GgufEngine(Artifact.open(folder))
    engine.close()
    engine.close()
    with pytest.raises(EdgeError, match="closed"):
        engine.score([[1]], [[1]])


def test_without_torch_and_transformers(folder: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'gguf']))\n"
        "from edge.runtime import load\n"
        f"with load({str(folder)!r}) as model:\n"
        "    print(len(model.generate('a b', min_new_tokens=4, max_new_tokens=4).token_ids))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout == "4\n", run.stderr
    assert run.stderr == ""


# -- damaged files -------------------------------------------------------------------------------


def refused(path: Path, data: bytes, match: str | None = None) -> None:
    path.write_bytes(data)
    started = time.perf_counter()
    with pytest.raises(ArtifactError, match=match) as caught:
        read_header(path)
    assert time.perf_counter() - started < 2
    assert "\n" not in str(caught.value)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def head(tensors: int = 0, entries: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries)


ROOM = bytes(4096)
HUGE = (1 << 64) - 1
CRAFTED = {
    "empty": (b"", "empty"),
    "magic": (b"GGML" + ROOM, "magic"),
    "version 1": (head(version=1) + ROOM, "version 1"),
    "other byte order": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + ROOM, "version"),
    "huge entries": (head(entries=HUGE) + ROOM, "metadata entries"),
    "huge tensors": (head(tensors=HUGE) + ROOM, "tensors"),
    "49 bytes": (head(entries=1) + struct.pack("<Q", 1 << 40) + bytes(17), "key of"),
    "long key": (head(entries=1) + struct.pack("<Q", 1 << 20) + ROOM, "key of 1048576 bytes"),
    "key not UTF-8": (head(entries=1) + struct.pack("<Q", 2) + b"\xff\xfe" + ROOM, "UTF-8"),
    "value type": (head(entries=1) + text("a") + struct.pack("<I", 99) + ROOM, "unknown type 99"),
    "long string": (head(entries=1) + text("a") + struct.pack("<IQ", 8, HUGE) + ROOM, "bytes"),
    "long array": (head(entries=1) + text("a") + struct.pack("<IIQ", 9, 0, HUGE) + ROOM, "values"),
    "strings": (head(entries=1) + text("a") + struct.pack("<IIQ", 9, 8, 1 << 50) + ROOM, "values"),
    "string in array": (
        head(entries=1) + text("a") + struct.pack("<IIQQ", 9, 8, 2, HUGE) + ROOM,
        "is truncated",
    ),
    "nested array": (
        head(entries=1) + text("a") + struct.pack("<IIQ", 9, 9, 1) * 100 + ROOM,
        "array of type 9",
    ),
    "repeated key": (
        head(entries=2) + (text("a") + struct.pack("<IB", 0, 1)) * 2 + ROOM,
        "is repeated",
    ),
    "alignment": (
        head(entries=1) + text("general.alignment") + struct.pack("<II", 4, 24) + ROOM,
        "alignment 24",
    ),
    "repeated pieces": (
        head(entries=1)
        + text("tokenizer.ggml.tokens")
        + struct.pack("<IIQ", 9, 8, 2)
        + text("x") * 2
        + ROOM,
        "repeated or empty",
    ),
    "dimensions": (head(tensors=1) + text("t") + struct.pack("<I", 5) + ROOM, "5 dimensions"),
    "no values": (head(tensors=1) + text("t") + struct.pack("<IQ", 1, 0) + ROOM, "shape"),
    "overflow": (
        head(tensors=1) + text("t") + struct.pack("<IQQIQ", 2, 1 << 40, 1 << 40, 0, 0) + ROOM,
        "shape",
    ),
    "tensor type": (
        head(tensors=1) + text("t") + struct.pack("<IQIQ", 1, 8, 77, 0) + ROOM,
        "unknown type 77",
    ),
    "half a block": (
        head(tensors=1) + text("t") + struct.pack("<IQIQ", 1, 33, 8, 0) + ROOM,
        "blocks of 32",
    ),
    "offset": (head(tensors=1) + text("t") + struct.pack("<IQIQ", 1, 8, 0, 64) + ROOM, "misplaced"),
    "beyond the end": (
        head(tensors=1) + text("t") + struct.pack("<IQIQ", 1, 1020, 0, 0) + bytes(2000),
        "truncated",
    ),
    "long name": (head(tensors=1) + text("t" * 64) + ROOM, "name of 64 bytes"),
}


@pytest.mark.parametrize("kind", CRAFTED)
def test_crafted_files(kind: str, tmp_path: Path) -> None:
    refused(tmp_path / "model.gguf", *CRAFTED[kind])


def test_every_truncation(folder: Path, tmp_path: Path) -> None:
    data = (folder / "model.gguf").read_bytes()
    read_header(folder / "model.gguf")
    for length in [*range(0, 400), *range(400, len(data), 997), len(data) - 1]:
        refused(tmp_path / "model.gguf", data[:length])


def test_every_flipped_byte_of_the_header(folder: Path, tmp_path: Path) -> None:
    """Either the header is refused or it still says what the manifest says: never a crash."""
    artifact = Artifact.open(folder)
    shape = artifact.manifest.architecture
    data = bytearray((folder / "model.gguf").read_bytes())
    path = tmp_path / "model.gguf"
    survived = 0
    for place in range(0, 900, 3):
        damaged = data.copy()
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            check_model(read_header(path), shape, 512, path)
            survived += 1
        except ArtifactError:
            pass
    assert survived < 150  # names and other free text


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"d_model": 65}, r"t5\.embedding_length is 64, the manifest says 65"),
        ({"num_decoder_layers": 2}, r"t5\.decoder_block_count"),
        ({"vocab_size": 121}, "120 entries, the manifest says 121"),
        ({"decoder_start_token_id": 1}, "decoder_start_token_id"),
    ],
)
def test_another_shape_than_the_manifests(change: dict[str, int], match: str, folder: Path) -> None:
    artifact = Artifact.open(folder)
    shape = dataclasses.replace(artifact.manifest.architecture, **change)
    other = dataclasses.replace(artifact.manifest, architecture=shape)
    with pytest.raises(ArtifactError, match=match):
        GgufEngine(Artifact(folder, other))


def test_what_llama_cpp_refuses(folder: Path, tmp_path: Path) -> None:
    """A file that only llama.cpp refuses, here a signed number: its reason is in the message."""
    data = bytearray((folder / "model.gguf").read_bytes())
    key = b"t5.context_length"
    data[data.index(key) + len(key)] = 5  # int32
    (tmp_path / "model.gguf").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"llama\.cpp can't load it \(.*context_length"):
        GgufEngine(Artifact(tmp_path, Artifact.open(folder).manifest))


def test_limits_bound_the_context(folder: Path) -> None:
    manifest = Artifact.open(folder).manifest
    small = dataclasses.replace(manifest, limits=Limits(max_input_tokens=8, max_new_tokens=4))
    engine = GgufEngine(Artifact(folder, small))
    assert len(engine.score([[1] * 8], [[4] * 4])[0]) == 4
    with pytest.raises(InputTooLongError, match="takes 8"):
        engine.score([[1] * 9], [[4]])
    engine.close()


def test_a_long_answer_gets_a_larger_cache(source: SourceModel, tmp_path: Path) -> None:
    """The cache of the limit, 12,000 tokens here, is not allocated before it is needed."""
    options = ExportOptions(max_new_tokens_limit=12_000)
    Publisher(source, options).publish(Target("gguf", "f32"), tmp_path / "out")
    with load(tmp_path / "out") as opened:
        [short] = generate(opened, [ROWS[1]], max_new_tokens=20, min_new_tokens=20)
        [long] = generate(opened, [ROWS[1]], max_new_tokens=1100, min_new_tokens=1100)
        assert long.token_ids[:20] == short.token_ids
        assert len(long.token_ids) == 1100
        assert tokens(generate(opened, [ROWS[1]], max_new_tokens=20, min_new_tokens=20)) == [
            short.token_ids
        ]
