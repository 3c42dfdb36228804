"""Fill in the middle (Bavarian et al. 2022): prefix, suffix, and then the middle to be learned."""

import numpy as np

from nanogpt.text.batches import BATCHES, Batch, RandomWindows, known_separator


class FillInTheMiddle(RandomWindows):
    """Half of the windows as they are, half with their middle moved to the end."""

    def batch(self, number: int, batch_size: int, seed: int) -> Batch:
        plain = super().batch(number, batch_size, seed)
        draw = np.random.default_rng([seed, number, 1])
        rows, mark = [], [known_separator(self.separator)]
        for row in np.concatenate([plain.ids, plain.targets[:, -1:]], axis=1):
            a, b = sorted(draw.integers(0, len(row) + 1, 2))
            moved = np.concatenate([row[:a], mark, row[b:], mark, row[a:b]])[: len(row)]
            rows.append(moved if draw.random() < 0.5 else row)
        ids = np.stack(rows)
        return Batch(ids[:, :-1], ids[:, 1:])


BATCHES["fill-in-the-middle"] = FillInTheMiddle
