import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from sclatent.data.compact import compact
from sclatent.kernels.cuda import plain
from sclatent.kernels.cuda.rows import DeviceRows, Standard, to_device, widen

ROWS = torch.tensor([4, 0, 7, 7, 2])


@pytest.fixture(params=[30, 90_000], ids=["16 bits", "32 bits"])
def counts(request):
    """Counts with an empty cell, and a cell with more of them than a block holds."""
    dense = np.random.default_rng(0).poisson(0.5, (9, 600)).astype(np.int32)
    dense[4] = 0
    dense[2, :500] = 3
    dense[7, 11] = request.param
    return csr_matrix(dense)


@pytest.fixture(params=["triton", "plain"])
def gather(request):
    """Return a function of rows on the device, and these parameters."""
    if request.param == "plain":
        return plain.gather
    device = request.getfixturevalue("triton_device")
    from sclatent.kernels.cuda.gather import gather

    def run(source, rows, standard, dtype):
        source = DeviceRows(*(part.to(device) for part in source[:4]), source.n_genes)
        standard = standard and Standard(*(part.to(device) for part in standard))
        found = gather(source, rows.to(device), standard, dtype)
        return type(found)(*(part.cpu() for part in found))

    return run


def test_the_matrices_are_the_counts_and_their_logs(gather, counts):
    dense = torch.from_numpy(counts.toarray())[ROWS]
    found = gather(to_device(compact(counts), "cpu"), ROWS, None, torch.float32)
    assert torch.equal(widen(found.counts), dense)
    assert torch.allclose(found.inputs, torch.log1p(dense.float()), rtol=1e-6)
    assert torch.equal(found.library_size, dense.sum(1).clamp(min=1).float())


def test_counts_stay_in_the_type_that_holds_them(gather, counts):
    found = gather(to_device(compact(counts), "cpu"), ROWS, None, torch.bfloat16)
    assert found.inputs.dtype == torch.bfloat16
    assert found.counts.dtype == (torch.int16 if counts.max() < 65_536 else torch.int32)


def test_an_autoencoders_input_is_standardised_gene_by_gene(gather, counts):
    generator = torch.Generator().manual_seed(0)
    mean, sd = torch.rand(2, 600, generator=generator) + 0.5
    standard = Standard(torch.tensor(300.0), mean, sd)
    found = gather(to_device(compact(counts), "cpu"), ROWS, standard, torch.float32)
    dense = torch.from_numpy(counts.toarray())[ROWS].float()
    size = dense.sum(1, keepdim=True).clamp(min=1) / 300
    expected = (torch.log1p(dense / size) - mean) / sd
    assert torch.allclose(found.inputs, expected, rtol=1e-5, atol=1e-5)
