"""What an answer costs: estimated from sizes, and measured on this machine. The two never share a number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from compression.backends.base import Architecture


def prefill_flops(architecture: Architecture, sequence_per_layer: Sequence[int]) -> int:
    """Estimated floating-point operations of one prefill of the language model.

    Per layer with n positions, width d, head width h, MLP width m, `heads` query heads and `kv` key heads:
    projections n·d·h·(2·heads + 2·kv), attention 2·n²·heads·h, gated MLP 3·n·d·m, in multiply-adds; times two. This is
    4nd² + 2n²d + 3ndm for plain multi-head attention (compressors' usual form, e.g. SparseVLM's). The attention counts
    the full
    square, of which a causal kernel computes about half. Left out: norms, rotary positions, softmax, embedding, the
    output head (one position).
    """
    total = 0
    a = architecture
    for n in sequence_per_layer:
        total += (
            n * a.dim * a.head_dim * (2 * a.heads + 2 * a.kv_heads)
            + 2 * n * n * a.heads * a.head_dim
            + 3 * n * a.dim * a.ffn
        )
    return 2 * total


def decode_flops(architecture: Architecture, sequence_per_layer: Sequence[int], steps: int) -> int:
    """Estimated floating-point operations of decoding steps that follow a prefill: one position each, which sees all.

    As `prefill_flops`, with attention 2·n·heads·h where n positions are seen; the output head is left out as there.

    Args:
        sequence_per_layer: Positions that each layer holds after the prefill.
        steps: How many; each adds a position.
    """
    a = architecture
    fixed = a.dim * a.head_dim * (2 * a.heads + 2 * a.kv_heads) + 3 * a.dim * a.ffn
    seen = sum(steps * n + steps * (steps + 1) // 2 for n in sequence_per_layer)
    return 2 * (len(sequence_per_layer) * steps * fixed + 2 * seen * a.heads * a.head_dim)


def encode_flops(architecture: Architecture, patches_per_view: Sequence[int]) -> int:
    """Estimated floating-point operations of the vision encoder: 4nd² + 2n²d + 2ndm multiply-adds a layer, times two.

    n counts the patches of a view and its [CLS], where it has one. A gated MLP has 3ndm, and in a layer with windows of
    w patches attention has 2nwd, as if all windows were whole. Left out: patch embedding, norms, softmax, projector.
    """
    a, total = architecture, 0
    for patches in patches_per_view:
        n = patches + a.encoder_has_cls
        same = 4 * n * a.encoder_dim**2 + (3 if a.encoder_is_gated else 2) * n * a.encoder_dim * a.encoder_ffn
        whole, windowed = a.encoder_layers - a.encoder_windowed_layers, a.encoder_windowed_layers
        seen = whole * n + windowed * min(n, a.encoder_window)
        total += a.encoder_layers * same + 2 * n * seen * a.encoder_dim
    return 2 * total


def merged_encode_flops(
    architecture: Architecture, patches_per_view: Sequence[int], reductions: Sequence[Sequence[int]]
) -> int:
    """Estimated floating-point operations of a vision encoder that merges between attention and MLP of its blocks.

    As `encode_flops`, with the patches that enter a block in its attention and those that are left in its MLP; also
    left out is the matching, n² times the width of a head over 4 a block.

    Args:
        patches_per_view: That the tower reads in each of its passes.
        reductions: For each of them, how many patches each block merges away; later blocks are not run.
    """
    a, total = architecture, 0
    for patches, counts in zip(patches_per_view, reductions, strict=True):
        n = patches + 1
        for count in counts:
            total += 4 * n * a.encoder_dim**2 + 2 * n * n * a.encoder_dim
            n -= count
            total += 2 * n * a.encoder_dim * a.encoder_ffn
    return 2 * total


@dataclass
class PeakMemory:
    """Highest memory inside a `measured_peak` block, in bytes; None where this system cannot tell."""

    value: int | None = None


@contextmanager
def measured_peak(device: str) -> Iterator[PeakMemory]:
    """Measure the highest memory inside the block.

    On CUDA: the allocator's peak. On a CPU under Linux: the highest resident set of the whole process, whose mark is
    reset before the block; it holds the model, the libraries and whatever else the process keeps.
    """
    peak = PeakMemory()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak.value = int(torch.cuda.max_memory_allocated())
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
        is_reset = True
    except OSError:  # not Linux, or not permitted
        is_reset = False
    yield peak
    if is_reset:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                peak.value = int(line.split()[1]) * 1024
