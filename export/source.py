"""The model to export: a T5-family Hugging Face folder or hub id, read without running its code.

Exporters read everything from a `SourceModel`: the weights by `tensor`, `state_dict` or
`build_torch_model`, the architecture, the config and the tokenizer. Weights come from safetensors
only, never from pickle.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edge.export.draft_head import DraftHead
from edge.export.model_folder import read_config
from edge.export.torch_model import torch_model_of
from edge.export.weights import SafetensorsWeights
from edge.runtime.artifact import TOKENIZER_NAME
from edge.runtime.errors import ModelError, library_errors
from edge.runtime.hub import snapshot_of
from edge.runtime.text.tokenization import Tokenizer
from edge.train.model.architecture import (
    EMBEDDING,
    HEAD,
    check_shapes,
    expected_shapes,
    read_architecture,
)
from edge.train.model.byte_tokenizer import byte_tokenizer, is_byte_tokenizer
from edge.train.model.folder import check_model_folder, open_tokenizer, require_tokenizer
from edge.train.model.generation import read_generation, read_task_settings
from edge.train.model.local_folder import local_folder
from edge.train.model.marked_files import loading_options
from edge.train.model.training_record import RECORD_NAME

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class InputMoments(Protocol):
    """Second moments of what linear layers read, by the state-dict names of their weights."""

    def of(self, name: str) -> np.ndarray | None:
        """XᵀX / tokens of a layer's inputs X [in, in], or None if it is no linear layer."""


class SourceModel:
    """A T5-family model: configuration, weights and tokenizer.

    Attributes:
        folder: the local folder.
        name: what the user called it (a path's last part, or a hub id).
        revision: the hub's commit, or None.
        tokenizer_source: the folder with the tokenizer.
        config: the values of config.json.
        architecture: the shape, with the head's tying and scaling settled.
        training: the record that `edge train` left in the folder, or {}.
        generation: the generation settings of the folder.
        tasks: those of single tasks, from config.json's task_specific_params.
        weights_sha256: the hash of the folder's weight files; the same for a copy with other
            weights, since it identifies what an artifact was made from.
        head_projection: P, float32 [d_model, d_model], with lm_head = shared · P, or None.
        precise_weights: gives the names of weights that 4-bit formats keep in 8 bits, or None.
        draft_head: predicts answers as edits of the input, or None.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str | None = None,
        revision: str | None = None,
        tokenizer: str | Path | None = None,
    ) -> None:
        """Read a local folder; `open` also takes hub ids.

        Args:
            folder: the folder. One in the hub's cache says which model and commit it is.
            name: what the user called it.
            revision: the hub's commit.
            tokenizer: a folder with the tokenizer, in place of the model's.

        Raises:
            ModelError: not a T5-family model, no safetensors, or weights that do not fit the
                config.
        """
        self.folder = Path(folder)
        snapshot = snapshot_of(self.folder) or (self.folder.resolve().name, None)
        self.name = name or snapshot[0]
        self.revision = snapshot[1] or revision
        self.tokenizer_source = self.folder if tokenizer is None else Path(tokenizer)
        check_model_folder(self.folder)
        self.config = read_config(self.folder / "config.json")
        self.training = read_config(self.folder / RECORD_NAME, optional=True)
        self.generation = read_generation(self.folder)
        self.tasks = read_task_settings(self.folder)
        self._stored = SafetensorsWeights(self.folder)
        self._weights: Mapping[str, np.ndarray] = self._stored
        self._input_moments: InputMoments | None = None
        self.head_projection: np.ndarray | None = None
        self.precise_weights: Callable[[], frozenset[str]] | None = None
        self.draft_head: DraftHead | None = None
        self.architecture = read_architecture(
            self.config,
            tied_head=self._head_is_tied(),
            folder=self.folder,
            generation=self.generation,
        )
        check_shapes(self._stored.files.shapes, self.architecture, self.folder)
        self._stored.files.require_one_embedding()

    @classmethod
    def open(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        tokenizer: str | Path | None = None,
    ) -> SourceModel:
        """Open a local folder, or download a hub id such as `google/flan-t5-small`.

        Args:
            model: the folder or the hub id.
            revision: branch, tag or commit of a hub model.
            tokenizer: a folder or hub id with the tokenizer, in place of the model's.

        Raises:
            ModelError: not found, no access, not a T5-family model, no safetensors, or weights that
                do not fit the config.
        """
        if tokenizer is not None:
            tokenizer = local_folder(tokenizer, weights=False)
        return cls(local_folder(model, revision), tokenizer=tokenizer)

    # -- weights ---------------------------------------------------------------------------------

    def tensor(self, name: str) -> np.ndarray:
        """A weight by its state-dict name: float32, out × in, as transformers stores it."""
        if name == HEAD and self.architecture.tied_head:
            name = EMBEDDING
        return self._weights[name]

    def state_dict(self) -> dict[str, np.ndarray]:
        """All weights by name, in new float32 arrays; without `lm_head.weight` if it is tied."""
        names = expected_shapes(self.architecture)
        return {name: np.array(self.tensor(name)) for name in names}

    @property
    def weights_sha256(self) -> str:
        """The sha256 of the folder's weights (see `SafetensorsWeights.sha256`)."""
        return self._stored.sha256

    def input_moments(self, name: str) -> np.ndarray | None:
        """Second moments XᵀX / tokens of what a linear layer reads [in, in], if they are known.

        They are the Hessian of the layer's squared output error, and weigh rounding errors.

        Args:
            name: state-dict name of the layer's weight.
        """
        return self._input_moments.of(name) if self._input_moments is not None else None

    def with_weights(
        self,
        weights: Mapping[str, np.ndarray],
        config_changes: Mapping[str, Any] | None = None,
        input_moments: InputMoments | None = None,
        head_projection: np.ndarray | None = None,
    ) -> SourceModel:
        """A copy of this model with other weights; exporters treat it like one on disk.

        Meant for weights that compute the same function and are easier to quantize. Name, folder,
        tokenizer and `weights_sha256` stay those of the original.

        Args:
            weights: state-dict name → float32 array, complete; read lazily, one at a time.
            config_changes: values of config.json that the new weights ask for, such as
                {"layer_norm_epsilon": 1e-4}. Whether the head is tied follows from the weights.
            input_moments: what the method of that name returns, measured when it is asked for.
            head_projection: see the attribute of that name.

        Raises:
            ModelError: the weights do not fit the config.
        """
        model = copy.copy(self)
        model.__dict__.pop("torch_model", None)
        model.config = {**self.config, **(config_changes or {})}
        model._weights = weights
        model._input_moments = input_moments
        model.head_projection = head_projection
        model.architecture = read_architecture(
            model.config,
            tied_head=model._head_is_tied(),
            folder=self.folder,
            generation=self.generation,
        )
        shapes = {name: weight.shape for name, weight in weights.items()}
        check_shapes(shapes, model.architecture, self.folder)
        return model

    def _head_is_tied(self) -> bool:
        """The weights decide, as in transformers 5, whose config says "tied" for every T5."""
        return HEAD not in self._weights or np.array_equal(
            self._weights[HEAD], self._weights[EMBEDDING]
        )

    # -- tokenizer -------------------------------------------------------------------------------

    def write_tokenizer(self, folder: Path) -> None:
        """Write the model's tokenizer.json to `folder`, converted from spiece.model if needed.

        Raises:
            ModelError: the model has no tokenizer.
        """
        place = self.tokenizer_source
        require_tokenizer(place)
        if (place / TOKENIZER_NAME).is_file():
            (folder / TOKENIZER_NAME).write_bytes((place / TOKENIZER_NAME).read_bytes())
            return
        if is_byte_tokenizer(place):
            byte_tokenizer(open_tokenizer(place), place).save(str(folder / TOKENIZER_NAME))
            return
        tokenizer: Any = open_tokenizer(place)
        with library_errors(ModelError, place, "the tokenizer can't be converted"):
            tokenizer.backend_tokenizer.save(str(folder / TOKENIZER_NAME))

    @contextlib.contextmanager
    def tokenizer_folder(self) -> Iterator[Path]:
        """A temporary folder that holds the model's tokenizer.json."""
        with tempfile.TemporaryDirectory(prefix="edge-tokenizer-") as folder:
            self.write_tokenizer(Path(folder))
            yield Path(folder)

    @functools.cached_property
    def pieces(self) -> int:
        """The number of ids with a piece of text; the model's vocab_size may be larger."""
        with self.tokenizer_folder() as folder:
            eos = self.architecture.eos_token_id
            return Tokenizer(folder / TOKENIZER_NAME, eos=eos).pieces

    # -- transformers' model ---------------------------------------------------------------------

    @functools.cached_property
    def torch_model(self) -> PreTrainedModel:
        """transformers' model in float32 and eval mode, the reference for parity.

        transformers itself reads the folder, so that a fault in our reading of it shows. A copy
        with other weights has no folder; its model is built from the weights.
        """
        if self._weights is not self._stored:
            return self.build_torch_model()
        import torch
        from transformers import AutoModelForSeq2SeqLM

        with _quiet_transformers(), library_errors(ModelError, self.folder):
            model = AutoModelForSeq2SeqLM.from_pretrained(
                self.folder,
                **loading_options(self.folder) | {"dtype": torch.float32},
                use_safetensors=True,
                trust_remote_code=False,
            )
        return model.eval()

    def release_memory(self) -> None:
        """Free `torch_model`; the next use makes it again."""
        self.__dict__.pop("torch_model", None)

    def build_torch_model(self) -> PreTrainedModel:
        """Build a new transformers model from the config and the weights, in float32.

        The caller owns it and may change its weights in place.
        """
        from transformers import AutoConfig

        settings = {name: value for name, value in self.config.items() if name != "model_type"}
        with _quiet_transformers(), library_errors(ModelError, self.folder):
            config = AutoConfig.for_model(self.architecture.model_type, **settings)
            return torch_model_of(config, self.state_dict())


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bar, and no warning about an untied head."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
