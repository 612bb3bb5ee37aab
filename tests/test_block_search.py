"""The GPU's search: its kernels in Triton's interpreter, and compiled for a Hopper GPU."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="the kernels are written in Triton")

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from dense_hn import block_search


@pytest.fixture(scope="module")
def interpreted():
    """top_k in a process of its own: Triton settles how it runs when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawned) as process:
            yield lambda *given: process.submit(block_search.top_k, *given).result()


# Rows and dimensions that fill no tile, more blocks than hits and fewer, every width of
# a tile of queries, more queries than one tile holds.
SHAPES = [
    (1, 64, 8, 64),
    (2, 100, 16, 100),
    (3, 1000, 40, 10),
    (17, 700, 64, 3),
    (33, 513, 100, 8),
    (130, 200, 70, 5),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_equals_a_stable_sort(interpreted, shape, kind):
    number, passages, dimension, k = shape
    rng = np.random.default_rng(number)
    # Whole numbers have exact products, and ties at every place.
    queries = torch.from_numpy(rng.integers(-2, 3, (number, dimension))).to(kind)
    vectors = torch.from_numpy(rng.integers(-2, 3, (passages, dimension))).to(kind)
    scores, rows = interpreted(queries, vectors, k)
    products = (queries.double() @ vectors.double().T).numpy()
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_array_equal(scores, np.take_along_axis(products, order, axis=1))


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_sums_in_float32(interpreted, kind):
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(20, 96, generator=generator).to(kind)
    vectors = torch.randn(900, 96, generator=generator).to(kind)
    scores, rows = interpreted(queries, vectors, 30)
    exact = (queries.double() @ vectors.double().T).topk(30, dim=1)
    np.testing.assert_allclose(scores, exact.values, rtol=1e-6)
    assert (rows == exact.indices).float().mean() > 0.999


def test_keys_are_ordered_by_score_and_then_by_row():
    scores = torch.tensor([-torch.inf, -2.5, -1e-30, -0.0, 0.0, 1e-30, 3.0, torch.inf])
    keys = block_search._keys(
        scores[:, None], torch.tensor([2**31 - 2, 7, 0])
    ).flatten()
    # The two zeros are one score, of which the lower row is the higher key.
    zeros = keys.view(8, 3)[3:5]
    assert torch.equal(zeros[0], zeros[1])
    others = torch.cat([keys[:9], keys[12:]])
    assert torch.equal(others, others.unique())
    back = block_search._score(keys).view(8, 3)
    assert torch.equal(back, scores[:, None].expand(8, 3))
    assert block_search._number(keys).view(8, 3).tolist() == [[2**31 - 2, 7, 0]] * 8


@pytest.mark.parametrize("width", [16, 32, 64, 128])
def test_the_matrix_units_of_a_hopper_gpu_are_used(width):
    constants = {
        "QUERIES": width,
        "ROWS": block_search.ROWS,
        "BLOCK": block_search.BLOCK,
        "DIMENSIONS": block_search.DIMENSIONS,
    }
    kinds = ["*fp16", "*fp16", "*fp32", *["i32"] * 4, *["constexpr"] * 4]
    kernel = block_search._block_maxima
    # Pointers of tensors, and the dimension of any real model, are multiples of 16.
    aligned = {(place,): [["tt.divisibility", 16]] for place in (0, 1, 2, 6)}
    source = ASTSource(
        kernel,
        dict(zip(kernel.arg_names, kinds, strict=True)),
        constexprs=constants,
        attrs=aligned,
    )
    compiled = compile(
        source,
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": 8 if width >= 64 else 4, "num_stages": 4},
    )
    assert "wgmma.mma_async" in compiled.asm["ptx"]
    # Two programs fit on a multiprocessor, one reading while the other ends.
    assert 2 * compiled.metadata.shared < 227 * 1024 or width > 64
    assert compiled.asm["cubin"]
