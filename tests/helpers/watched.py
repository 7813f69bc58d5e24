"""A training whose last model leaves its logits behind, to be compared with those of what it has saved."""

from collections.abc import Sequence
from pathlib import Path

import torch

from videomind.train import role_training, train
from videomind.train.role_trainer import RoleTrainer

IDS = [[5, 6, 7, 8, 9, 3]]
LOGITS = "logits.pt"  # in the output folder: before the first step, if any, and at the end


class WatchedTrainer(RoleTrainer):
    """Writes the logits of the model that trains as it is when it is saved at the end."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if not _internal_call:
            model = self.model_wrapped
            model.eval()
            with torch.no_grad():
                logits = model(input_ids=torch.tensor(IDS, device=self.args.device)).logits
            if self.args.should_save:
                torch.save(logits.float().cpu(), Path(self.args.output_dir) / LOGITS)
        super().save_model(output_dir, _internal_call)


def main(argv: Sequence[str]) -> int:
    """Train as the command does."""
    role_training.RoleTrainer = WatchedTrainer
    return train.main(argv)
