"""The cost model's first choice where weights, not multiply-adds, decide.  Times: Zen 4."""

from dataclasses import replace

import pytest

from tvm_passes.schedules.machine import AVX2, AVX512, NEON
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


def test_vectors_that_are_not_full_are_work_for_threads_all_the_same():
    of_groups = Nest(1, 16, 2, 24, 24, 24, 24, 18, 3, 1)
    assert candidates(of_groups, replace(MACHINE, cores=8))[0].parallel
    assert not candidates(replace(of_groups, blocks=2), replace(MACHINE, cores=8))[0].parallel


def test_threads_are_not_woken_for_a_small_copy_alone():
    """On two threads 49.5 us with the input padded first, 41.3 us strip by strip."""
    of_mnist = Nest(1, 3, 16, 14, 14, 7, 7, 400, 5, 1, 1152, 1152, (2, 2), (2, 2), kernel_columns=5)
    assert candidates(of_mnist, replace(MACHINE, cores=2))[0].copy_per_strip


def test_a_strip_stays_in_the_cache():
    for tiles in candidates(FIRST_OF_RESNET, MACHINE):
        strip = (2 * tiles.strip + 1) * 112 * tiles.blocks * 64
        assert tiles.in_registers or tiles.strip == 1 or strip <= MACHINE.l2


# 3x3 of 64 channels, 192 filters, 3x3/2 max-pool
SECOND_OF_GOOGLENET = replace(
    Nest(1, 12, 16, 57, 56, 28, 28, 576, 3, 1, 14848, 14848),
    pool=(3, 3),
    pool_stride=(2, 2),
    pool_padded=True,
    kernel_columns=3,
)


@pytest.mark.parametrize(
    ("nest", "strip"), [(SECOND_OF_GOOGLENET, 28), (FIRST_OF_RESNET, 28)], ids=["all", "half"]
)
def test_few_rows_are_computed_for_two_strips(nest, strip):
    """Of 28, 14 and 7 rows: 6.33, 6.41 and 6.56 ms; of 56, 28 and 14: 2.18, 2.16 and 2.21 ms."""
    assert candidates(nest, MACHINE)[0].strip == strip


def test_a_strip_that_leaves_l2_has_to_save_rows():
    """All of 960 rows of 960 columns in one strip would be 59 MB."""
    nest = replace(SECOND_OF_GOOGLENET, rows=961, columns=960, out_rows=480, out_columns=480)
    assert 1 < candidates(nest, MACHINE)[0].strip < 16


# 11x11/4 of 3 channels, 64 filters, 3x3/2 max-pool
FIRST_OF_ALEXNET = replace(
    FIRST_OF_RESNET,
    rows=55,
    columns=55,
    out_rows=27,
    out_columns=27,
    reduction=363,
    kernel_rows=11,
    stride=4,
    kernel_columns=11,
    column_stride=4,
    pool_padded=False,
)


@pytest.mark.parametrize(
    ("machine", "blocks", "pixels", "fits"),
    [(AVX2, 2, 5, False), (AVX2, 4, 2, True), (NEON, 1, 8, False), (NEON, 1, 5, True)],
)
def test_inputs_that_columns_of_a_kernel_share_take_registers(machine, blocks, pixels, fits):
    """Of 10 sums beside 16 inputs, 53 loads and stores of 110 multiply-adds were spills."""
    nest = replace(FIRST_OF_ALEXNET, block=8, blocks=8)
    found = {(tiles.blocks, tiles.pixels) for tiles in candidates(nest, machine)}
    assert ((blocks, pixels) in found) == fits


def test_inputs_that_are_multiplied_from_memory_take_none():
    assert any(tiles.pixels == 8 for tiles in candidates(FIRST_OF_ALEXNET, AVX512))


@pytest.mark.parametrize("machine", [AVX2, NEON, AVX512])
def test_a_kernel_whose_columns_share_all_has_a_tile(machine):
    wide = replace(FIRST_OF_ALEXNET, columns=541, out_columns=270, kernel_columns=31)
    assert candidates(replace(wide, column_stride=1), machine)
