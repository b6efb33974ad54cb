"""What an encoder says of a batch."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class States:
    """A tower's output on one batch.

    tokens: [batch, slots, width] final hidden states; pooled: [batch, projection] projected end-of-text state;
    is_text: [batch, slots] bool, true from start-of-text up to the first end-of-text.
    """

    tokens: torch.Tensor
    pooled: torch.Tensor
    is_text: torch.Tensor

    def rows(self, chosen: slice) -> "States":
        """The states of some rows."""
        return States(self.tokens[chosen], self.pooled[chosen], self.is_text[chosen])


def up_to_end(ids: torch.Tensor, end_of_text: int) -> torch.Tensor:
    """True up to and including the first end-of-text of each row, bool [batch, slots]; padding uses the same id."""
    ends = ids == end_of_text
    return ends.cumsum(dim=1) - ends.int() == 0
