"""What sparse attention reads, as closed forms of its sizes: standard library only.

Of the query at position t, which sees S = t + 1 tokens. Counts are per query and group of heads that share keys.
"""

from __future__ import annotations

from dataclasses import dataclass

UNION_BLOCKS = 8
"""Up to so many times the selected blocks it is faster to look at all of them under a mask; measured on a CPU."""


def kernel_takes(head: int, dim: int, size: int) -> bool:
    """Whether the kernels for a GPU take so many heads a group, and such heads and selected blocks.

    Their products are of powers of two, 16 at least.
    """
    return head <= 16 and dim <= 256 and all(n >= 16 and n & (n - 1) == 0 for n in (dim, size))


@dataclass(frozen=True)
class Sparsity:
    """The sizes of native sparse attention (arXiv 2502.11089).

    Attributes:
        block: tokens that one compressed key stands for.
        stride: tokens from one compressed block to the next.
        select_block: tokens of a block that is selected as a whole.
        num_select: blocks that a query selects, forced ones included.
        num_local: newest blocks that are forced, beside the first one; the current one is among them.
        window: tokens of the sliding window, the query's own included.
    """

    block: int
    stride: int
    select_block: int
    num_select: int
    num_local: int
    window: int

    @property
    def num_forced(self) -> int:
        """Blocks that every query selects if they are there."""
        return 1 + self.num_local

    @property
    def selected_tokens(self) -> int:
        """Tokens that the selection reads at most."""
        return self.num_select * self.select_block

    def broken_rule(self) -> tuple[str, int, str] | None:
        """The first size that does not fit the others: its name, its value and what is allowed."""
        rules = (
            (self.block % self.stride == 0, "stride", self.stride, f"a divisor of block = {self.block}"),
            (
                self.select_block % self.stride == 0,
                "select_block",
                self.select_block,
                f"a multiple of stride = {self.stride}",
            ),
            (self.select_block >= self.block, "select_block", self.select_block, f"at least block = {self.block}"),
            (
                self.num_select >= self.num_forced,
                "num_select",
                self.num_select,
                f"at least {self.num_forced}: the first block and num_local = {self.num_local} are always selected",
            ),
        )
        return next(((name, value, allowed) for holds, name, value, allowed in rules if not holds), None)

    def num_compressed(self, visible: int) -> int:
        """Compressed blocks that end within the first ``visible`` tokens."""
        return 0 if visible < self.block else (visible - self.block) // self.stride + 1

    def num_blocks(self, visible: int) -> int:
        """Blocks of the selection that begin within the first ``visible`` tokens."""
        return -(-visible // self.select_block)

    def reads(self, visible: int) -> tuple[int, int, int]:
        """Keys that a query reads through the compressed, the selected and the window branch."""
        blocks = self.num_blocks(visible)
        selected = visible
        if blocks > self.num_select:
            selected = (self.num_select - 1) * self.select_block + visible - (blocks - 1) * self.select_block
        return self.num_compressed(visible), selected, min(self.window, visible)

    def saving(self, visible: int) -> float:
        """How many times fewer keys a query reads than dense attention does."""
        return visible / sum(self.reads(visible))
