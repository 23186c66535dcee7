"""The augmentation of every epoch's rows: new disfluencies first, then renamed words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.train.augment.disfluency import DisfluencyAugmenter
from edge.train.augment.rename import Renamer
from edge.train.data.pairs import Pair

if TYPE_CHECKING:
    from edge.train.config import ResolvedTrainConfig


@dataclass(frozen=True)
class EpochAugmentation:
    """Applies a renamer and a disfluency augmenter; implements `Augmentation` of the sampler."""

    renamer: Renamer | None = None
    disfluencies: DisfluencyAugmenter | None = None

    @classmethod
    def from_config(
        cls, config: ResolvedTrainConfig, pairs: Sequence[Pair]
    ) -> EpochAugmentation | None:
        """The augmentation that `config` asks for, with words and disfluencies from `pairs`.

        Returns:
            None where both ratios are 0.

        Raises:
            UsageError: As `DisfluencyAugmenter`.
        """
        renamer = disfluencies = None
        if config.rename_ratio:
            renamer = Renamer(pairs, ratio=config.rename_ratio, seed=config.seed)
        if config.disfluency_ratio:
            disfluencies = DisfluencyAugmenter(
                pairs, ratio=config.disfluency_ratio, seed=config.seed
            )
        return cls(renamer, disfluencies) if renamer or disfluencies else None

    def set_epoch(self, epoch: int) -> None:
        """Reset the random generators to the start of this epoch."""
        for augmenter in (self.disfluencies, self.renamer):
            if augmenter is not None:
                augmenter.set_epoch(epoch)

    def augment(
        self, source: str, target: str, span: Sequence[int] | None
    ) -> tuple[str, str] | None:
        """New source and target, or None if the row stays unchanged.

        Rows whose `span` (start and end of the row's own input) is None get no disfluencies.
        """
        disfluent = None
        if self.disfluencies is not None and span is not None:
            disfluent = self.disfluencies.augment(source, target, span)
        renamed = None
        if self.renamer is not None:
            renamed = self.renamer.augment(disfluent or source, target)
        return renamed or (None if disfluent is None else (disfluent, target))
