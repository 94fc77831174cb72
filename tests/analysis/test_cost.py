"""Cost formulas against a count of every matrix product, and the memory meter against a known allocation."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from analysis.cost import encode_flops, measured_peak, prefill_flops
from compression.backends.base import Architecture

SMALL = Architecture(
    layers=2,
    dim=24,
    heads=4,
    kv_heads=2,
    head_dim=6,
    ffn=40,
    vocabulary=21,
    encoder_layers=3,
    encoder_dim=32,
    encoder_ffn=48,
)


def counted(products: list[tuple[int, int, int]]) -> int:
    """Operations of matrix products [a, b] x [b, c], two per multiply-add."""
    return sum(2 * a * b * c for a, b, c in products)


def test_prefill_counts_every_matrix_product_of_every_layer():
    expected = 0
    for n in (24, 13):
        expected += counted([(n, 24, 24), (n, 24, 12), (n, 24, 12), (n, 24, 24)])  # query, key, value, output
        expected += 4 * counted([(n, 6, n), (n, n, 6)])  # scores and mixture, per head
        expected += counted([(n, 24, 40), (n, 24, 40), (n, 40, 24)])  # gate, up, down
    assert prefill_flops(SMALL, (24, 13)) == expected


def test_plain_multi_head_attention_gives_the_form_of_the_papers():
    plain = Architecture(**{**SMALL.__dict__, "kv_heads": 4})
    n, d, m = 30, 24, 40
    assert prefill_flops(plain, (n,)) == 2 * (4 * n * d * d + 2 * n * n * d + 3 * n * d * m)


def test_the_encoder_counts_each_view_with_its_cls():
    n, d, m = 17, 32, 48
    one = counted([(n, d, d)] * 4) + counted([(n, d, n), (n, n, d)]) + counted([(n, d, m), (n, m, d)])
    assert encode_flops(SMALL, (16,)) == 3 * one
    assert encode_flops(SMALL, (16, 16)) == 6 * one


def test_an_encoder_of_windows_and_gates_counts_what_its_layers_do():
    n, d, m, w = 16, 32, 48, 4
    bare = replace(SMALL, encoder_has_cls=False, encoder_is_gated=True, encoder_windowed_layers=2, encoder_window=w)
    every = counted([(n, d, d)] * 4) + counted([(n, d, m), (n, d, m), (n, m, d)])
    window = counted([(w, d, w), (w, w, d)])
    assert encode_flops(bare, (n,)) == 3 * every + counted([(n, d, n), (n, n, d)]) + 2 * (n // w) * window
    assert encode_flops(bare, (3,)) == encode_flops(replace(bare, encoder_windowed_layers=0), (3,))


@pytest.mark.skipif(sys.platform != "linux", reason="the mark of the highest memory can be reset on Linux only")
def test_the_peak_sees_memory_that_is_gone_at_the_end():
    with measured_peak("cpu") as before:
        pass
    with measured_peak("cpu") as peak:
        block = np.ones(64 * 2**20, dtype=np.uint8)
        del block
    if before.value is None or peak.value is None:
        pytest.skip("this system does not let a process reset its own mark")
    assert peak.value - before.value > 50 * 2**20
