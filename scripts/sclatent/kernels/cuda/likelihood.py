"""log p(x) of a minibatch from logits, and its gradients, by two Triton kernels.

The first goes through a cell's genes twice: once for the softmax, once for the values. It leaves
log p(x), and the two sums over the genes that gradients need. With these every element of the
gradients stands alone, so that the second kernel is one pass without a reduction over genes. It
computes the values again, which is cheaper than to keep them, and sums the gradients of the biases
over a few cells at a time. Sums are taken in a fixed order: equal inputs give equal bits.

Letters for shapes: B cells, G genes, P parts of the cells.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sclatent.kernels.cuda.arithmetic import (
    inflate,
    negative_binomial,
    poisson,
    sigmoid,
    softplus,
)
from sclatent.kernels.cuda.gather import widen
from sclatent.kernels.cuda.kinds import LOG_MEAN, Kind, Terms

LOWEST_MEAN, HIGHEST_MEAN = tl.constexpr(LOG_MEAN[0]), tl.constexpr(LOG_MEAN[1])
NOTHING = tl.constexpr(-1e30)
CELLS = 8  # cells of a program that computes gradients


@triton.jit
def load_logit(matrix, bias, row, gene, inside, stride_row, stride_gene):
    """Return logits of one cell in float32, with their bias where there is one."""
    value = tl.load(matrix + row * stride_row + gene * stride_gene, mask=inside, other=0.0)
    value = value.to(tl.float32)
    if bias is not None:
        value += tl.load(bias + gene, mask=inside, other=0.0)
    return value


@triton.jit
def read(counts, cell, gene, inside, n_genes, heads, rows, strides):
    """Return counts and the logits of mean, theta and extra zeros of one cell."""
    x = widen(tl.load(counts + cell * n_genes + gene, mask=inside, other=0)).to(tl.float32)
    logit = load_logit(heads[0], heads[1], cell, gene, inside, n_genes, 1)
    theta, pi = logit, logit
    if heads[2] is not None:
        row = cell if rows is None else tl.load(rows + cell)
        theta = load_logit(heads[2], heads[3], row, gene, inside, strides[0], strides[1])
    if heads[4] is not None:
        pi = load_logit(heads[4], heads[5], cell, gene, inside, strides[2], strides[3])
    return x, logit, theta, pi


@triton.jit
def theta_of(value, lowest, highest, THETA: tl.constexpr):
    """Return log theta, and its derivative by the value that it comes from."""
    if THETA == "clamped":
        within = (value >= lowest) & (value <= highest)
        return tl.minimum(tl.maximum(value, lowest), highest), tl.where(within, 1.0, 0.0)
    elif THETA == "softplus":
        raw = softplus(value)
        within = (raw >= lowest) & (raw <= highest)
        slope = tl.where(within, sigmoid(value) / tl.maximum(raw, lowest), 0.0)
        return tl.log(tl.minimum(tl.maximum(raw, lowest), highest)), slope
    else:
        return value, tl.full(value.shape, 1.0, tl.float32)


@triton.jit
def evaluate(x, log_rate, theta, pi, lowest, highest, THETA: tl.constexpr, INFLATED: tl.constexpr):
    """Return log p(x) and its derivatives by log mu and by the logits of theta and extra zeros."""
    d_theta = tl.zeros(x.shape, tl.float32)
    d_pi = d_theta
    if THETA == "none":
        value, d_rate = poisson(x, log_rate)
    else:
        log_theta, slope = theta_of(theta, lowest, highest, THETA)
        value, d_rate, d_theta = negative_binomial(x, log_rate, log_theta)
        if INFLATED:
            value, d_rate, d_theta, d_pi = inflate(x, value, d_rate, d_theta, pi)
        d_theta *= slope
    return value, d_rate, d_theta, d_pi


@triton.jit
def softmax_shift(logits, bias, cell, n_genes, BLOCK: tl.constexpr):
    """Return the log of the sum of e^logit over the genes of a cell, negated."""
    largest = tl.full([BLOCK], NOTHING, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(0, n_genes, BLOCK):
        gene = first + tl.arange(0, BLOCK)
        inside = gene < n_genes
        logit = load_logit(logits, bias, cell, gene, inside, n_genes, 1)
        logit = tl.where(inside, logit, NOTHING)
        higher = tl.maximum(largest, logit)
        total = total * tl.exp(largest - higher) + tl.exp(logit - higher)
        largest = higher
    top = tl.max(largest, 0)
    return -top - tl.log(tl.sum(total * tl.exp(largest - top), 0))


@triton.jit
def log_rate_of(logit, shift, log_library, MEAN: tl.constexpr):
    """Return log mu; `shift` takes a logit to the log of its share."""
    if MEAN == "softmax":
        return logit + (shift + log_library)
    else:
        return tl.minimum(tl.maximum(logit, LOWEST_MEAN), HIGHEST_MEAN) + log_library


@triton.jit
def value_kernel(
    counts,
    log_library,
    heads,
    rows,
    strides,
    out,
    n_genes,
    lowest,
    highest,
    MEAN: tl.constexpr,
    THETA: tl.constexpr,
    INFLATED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write log p(x) of one cell, the shift of its softmax, and the sum of d log p / d log mu."""
    cell = tl.program_id(0).to(tl.int64)
    library = tl.load(log_library + cell)
    shift = 0.0
    if MEAN == "softmax":
        shift = softmax_shift(heads[0], heads[1], cell, n_genes, BLOCK)
    values, slopes = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for first in range(0, n_genes, BLOCK):
        gene = first + tl.arange(0, BLOCK)
        inside = gene < n_genes
        x, logit, theta, pi = read(counts, cell, gene, inside, n_genes, heads, rows, strides)
        log_rate = log_rate_of(logit, shift, library, MEAN)
        value, d_rate, _, _ = evaluate(x, log_rate, theta, pi, lowest, highest, THETA, INFLATED)
        values += tl.where(inside, value, 0.0)
        slopes += tl.where(inside, d_rate, 0.0)
    tl.store(out[0] + cell, tl.sum(values, 0))
    tl.store(out[1] + cell, shift)
    tl.store(out[2] + cell, tl.sum(slopes, 0))


@triton.jit
def gradient_kernel(
    counts,
    log_library,
    heads,
    rows,
    strides,
    known,
    out,
    sums,
    n_cells,
    n_genes,
    lowest,
    highest,
    MEAN: tl.constexpr,
    THETA: tl.constexpr,
    INFLATED: tl.constexpr,
    CELLS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the gradients of some cells and genes, and their sums over these cells."""
    part = tl.program_id(0)
    gene = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = gene < n_genes
    mean_sum = tl.zeros([BLOCK], tl.float32)
    theta_sum, pi_sum = mean_sum, mean_sum
    for number in range(CELLS):
        cell = (part * CELLS + number).to(tl.int64)
        here = inside & (cell < n_cells)
        cell = tl.minimum(cell, n_cells - 1)
        weight = tl.load(known[0] + cell)
        shift, total = tl.load(known[1] + cell), tl.load(known[2] + cell)
        library = tl.load(log_library + cell)
        x, logit, theta, pi = read(counts, cell, gene, here, n_genes, heads, rows, strides)
        log_rate = log_rate_of(logit, shift, library, MEAN)
        _, d_mean, d_theta, d_pi = evaluate(
            x, log_rate, theta, pi, lowest, highest, THETA, INFLATED
        )
        if MEAN == "softmax":
            d_mean -= tl.exp(logit + shift) * total
        else:
            free = (logit >= LOWEST_MEAN) & (logit <= HIGHEST_MEAN)
            d_mean = tl.where(free, d_mean, 0.0)
        place = cell * n_genes + gene
        mean_sum += put(out[0], place, here, d_mean * weight)
        if heads[2] is not None:
            theta_sum += put(out[1], place, here, d_theta * weight)
        if heads[4] is not None:
            pi_sum += put(out[2], place, here, d_pi * weight)
    target = part * n_genes + gene
    put(sums[0], target, inside, mean_sum)
    put(sums[1], target, inside, theta_sum)
    put(sums[2], target, inside, pi_sum)


@triton.jit
def put(matrix, place, inside, value):
    """Write values where a matrix is wanted, and return them, 0 outside."""
    if matrix is not None:
        tl.store(matrix + place, value.to(matrix.dtype.element_ty), mask=inside)
    return tl.where(inside, value, 0.0)


def values(kind: Kind, counts: Tensor, terms: Terms) -> tuple[Tensor, Tensor, Tensor]:
    """Evaluate log p(x).

    Parameters
    ----------
    kind
        Of distribution.
    counts
        (B, G) int16 bits or int32, as `gather` gives them.
    terms
        Contiguous but for theta and pi.

    Returns
    -------
    log_p, shift, total
        (B,) float32 each: log p(x), and what `gradients` must know: the shift from logits to log
        shares, and the derivative by the log library size.
    """
    n_cells, n_genes = counts.shape
    out = tuple(torch.empty(n_cells, device=counts.device) for _ in range(3))
    value_kernel[(n_cells,)](
        *common(counts, terms),
        out,
        n_genes,
        kind.lowest,
        kind.highest,
        MEAN=kind.mean,
        THETA=kind.theta,
        INFLATED=kind.zero_inflated,
        BLOCK=block(n_genes, 512),
    )
    return out


def gradients(kind: Kind, counts: Tensor, terms: Terms, known: tuple) -> Terms:
    """Return the gradients of each of the terms, in its type; None for what has none.

    Parameters
    ----------
    kind, counts, terms
        As for `values`.
    known
        The gradient of the loss by log p(x), and `shift` and `total` of `values`, (B,) each.
    """
    n_cells, n_genes = counts.shape
    n_parts = triton.cdiv(n_cells, CELLS)
    own = terms.theta is not None and terms.theta.dim() == 2  # else theta is that of all cells
    matrices = (terms.logits, terms.theta if own else None, terms.pi)
    out = tuple(None if m is None else m.new_empty((n_cells, n_genes)) for m in matrices)
    wanted = (terms.bias, terms.theta_bias if own else terms.theta, terms.pi_bias)
    sums = tuple(
        None if w is None else counts.new_empty((n_parts, n_genes), dtype=torch.float32)
        for w in wanted
    )
    size = block(n_genes, 256)
    gradient_kernel[(n_parts, triton.cdiv(n_genes, size))](
        *common(counts, terms),
        known,
        out,
        sums,
        n_cells,
        n_genes,
        kind.lowest,
        kind.highest,
        MEAN=kind.mean,
        THETA=kind.theta,
        INFLATED=kind.zero_inflated,
        CELLS=CELLS,
        BLOCK=size,
    )
    bias, theta_sum, pi_bias = (None if s is None else s.sum(0) for s in sums)
    theta = theta_sum
    if own:
        theta = out[1] if terms.theta_row is None else by_row(out[1], terms)
    return Terms(
        known[0] * known[2], out[0], bias, theta, theta_sum if own else None, None, out[2], pi_bias
    )


def by_row(gradient: Tensor, terms: Terms) -> Tensor:
    """Sum gradients of cells (B, G) to those of the rows of their table, (R, G)."""
    rows = torch.arange(len(terms.theta), device=gradient.device)
    return (rows[:, None] == terms.theta_row).to(gradient) @ gradient


def common(counts: Tensor, terms: Terms) -> tuple:
    """Return the first arguments of both kernels."""
    theta, pi = terms.theta, terms.pi
    heads = (terms.logits, terms.bias, theta, terms.theta_bias, pi, terms.pi_bias)
    of_theta = (0, 1) if theta is None or theta.dim() == 1 else theta.stride()
    of_pi = (0, 1) if pi is None else pi.stride()
    return counts, terms.log_library, heads, terms.theta_row, (*of_theta, *of_pi)


def block(n_genes: int, largest: int) -> int:
    """Return how many genes a program takes at a time."""
    return min(triton.next_power_of_2(n_genes), largest)
