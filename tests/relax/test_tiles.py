"""The cost model's first choice where weights, not multiply-adds, decide.  Times: Zen 4."""

from dataclasses import replace

from tvm_passes.schedules.machine import AVX512
from tvm_passes.schedules.tiles import Nest, candidates

MACHINE = replace(AVX512, l2=1 << 20, l3=32 << 20)
# 3x3, 1024 channels and filters, 13x13 pixels: 38 MB of weights
LAST_OF_TINY_YOLO = Nest(1, 64, 16, 13, 13, 13, 13, 9216, 3, 1, 61440, 61440)
# 3x3, 256 channels and filters, 14x14 pixels: 2.4 MB of weights
OF_RESNET = Nest(1, 16, 16, 14, 14, 14, 14, 2304, 3, 1, 16384, 16384)
# 7x7/2 of 3 channels, 3x3/2 max-pool: the pool reads a strip
FIRST_OF_RESNET = replace(
    Nest(1, 4, 16, 112, 112, 56, 56, 147, 7, 2, 2760, 2760),
    pool=(3, 3),
    pool_stride=(2, 2),
    pool_padded=True,
)


def test_weights_come_from_memory_once():
    """28.7 ms with one strip, 39.4 ms with a strip a row."""
    assert candidates(LAST_OF_TINY_YOLO, MACHINE)[0].strip == 13


def test_weights_are_used_for_many_pixels():
    """2.0 ms with 14 pixels a vector of weights, 2.7 ms with 2."""
    first = candidates(OF_RESNET, MACHINE)[0]
    assert first.pixels >= 7 * first.blocks // 2


def test_a_strip_and_its_input_stay_in_the_cache():
    for tiles in candidates(FIRST_OF_RESNET, MACHINE):
        strip = (2 * tiles.strip + 1) * 112 * tiles.blocks * 64
        assert tiles.in_registers or tiles.strip == 1 or strip < MACHINE.l2 // 2
