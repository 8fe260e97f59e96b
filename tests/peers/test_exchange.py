"""Models that change sides between sclatent and scvi-tools say the same on both."""

import itertools

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scvi.module import LDVAE, SCANVAE, VAE

from sclatent.models.exchange import from_scvi_tools, to_scvi_tools
from sclatent.models.scanvi import SCANVI, Scanvi
from sclatent.models.scvi import SCVI, Scvi
from sclatent.training.loader import Cells, Covariates

GENES, BATCHES, CATEGORIES, CLASSES = 50, 3, [2, 4], 3


def make_cells(batches=BATCHES, covariates=True) -> Cells:
    random = np.random.default_rng(0)
    counts = csr_matrix(random.poisson(random.gamma(1, 2, (64, GENES))).astype(np.int32))
    codes = [random.integers(0, n, 64) for n in CATEGORIES]
    one_hot = np.hstack(
        [np.eye(n, dtype=np.float32)[code] for n, code in zip(CATEGORIES, codes, strict=True)]
    )
    values = random.normal([3.0, -40.0], [0.5, 20.0], (64, 2)).astype(np.float32)
    return Cells(
        *(counts, random.integers(0, batches, 64), random.integers(-1, CLASSES, 64)),
        [f"b{number}" for number in range(batches)],
        covariates=Covariates({"a": [], "b": []}, ["u", "v"], one_hot, values)
        if covariates
        else None,
        classes=["x", "y", "z"],
    )


def stir(model: torch.nn.Module) -> None:
    """Give every tensor of a model, also running statistics, a value that is not its default."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_var", "_vars", "library.variance")):
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point() and name != "y_prior":
                tensor.normal_(0.1, 1 / max(4, tensor.shape[-1] ** 0.5))


def standardise(model: SCVI, cells: Cells) -> None:
    values = torch.from_numpy(cells.covariates.values)
    if values.shape[1]:
        model.number_mean.copy_(values.mean(0))
        model.number_sd.copy_(values.std(0))


def peer(settings: Scvi, cells: Cells, classes: int | None = None):
    """Build the module of scvi-tools with the same options."""
    sizes = cells.sizes
    options = {
        "n_input": sizes.genes,
        "n_batch": sizes.batches,
        "n_labels": CLASSES + 1 if classes is None else classes,
        "n_hidden": settings.n_hidden,
        "n_latent": settings.n_latent,
        "dispersion": settings.dispersion,
        "gene_likelihood": settings.likelihood,
        "use_observed_lib_size": settings.library == "observed",
        "library_log_means": np.zeros((1, sizes.batches)),
        "library_log_vars": np.ones((1, sizes.batches)),
    }
    if settings.decoder == "linear":
        return LDVAE(n_layers_encoder=settings.n_layers, **options)
    kind = VAE if classes is None else SCANVAE
    return kind(
        n_layers=settings.n_layers,
        n_continuous_cov=sizes.continuous,
        n_cats_per_cov=CATEGORIES if sizes.categorical else None,
        encode_covariates=settings.encode_covariates,
        **options,
    )


def their_tensors(cells: Cells) -> dict:
    starts = np.cumsum([0, *CATEGORIES])
    codes = [
        cells.covariates.one_hot[:, a:b].argmax(1) if cells.covariates.one_hot.size else None
        for a, b in itertools.pairwise(starts)
    ]
    there = cells.sizes.categorical > 0
    return {
        "x": torch.from_numpy(cells.counts.to_csr().toarray()).float(),
        "batch_index": torch.from_numpy(cells.batch)[:, None],
        "cont_covs": torch.from_numpy(cells.covariates.values) if there else None,
        "cat_covs": torch.from_numpy(np.stack(codes, 1)) if there else None,
    }


@torch.no_grad()
def assert_same(ours, theirs, cells: Cells) -> None:
    """Compare latent states, and the counts' parameters at a z and library size given to both."""
    ours.eval(), theirs.eval()
    minibatch, tensors = cells.take(np.arange(64)), their_tensors(cells)
    scvi = ours.scvi if isinstance(ours, SCANVI) else ours
    mean, variance = scvi.posterior(minibatch)
    inferred = theirs.inference(**tensors)
    close(mean, inferred["qz"].loc)
    close(variance, inferred["qz"].variance, rtol=1e-4)
    if scvi.settings.library == "latent":
        q = scvi.library.encoder(*scvi.inputs(minibatch))
        close(q[0], inferred["ql"].loc)
        close(q[1], inferred["ql"].variance, rtol=1e-4)
    else:
        close(minibatch.library_size.log(), inferred["library"])
    x = tensors.pop("x")
    label = torch.where(minibatch.label < 0, CLASSES, minibatch.label)[:, None]
    z, library = torch.randn_like(mean), x.sum(1, keepdim=True).log()
    found = theirs.generative(z=z, library=library, y=label, **tensors)
    px, mine = found["px"], scvi.decode(minibatch, z, library)
    close(mine.log_rate.exp() / library.exp(), px.scale)
    if scvi.settings.likelihood == "poisson":
        close(mine.mean, px.rate, rtol=1e-4)
        return
    close(mine.mean, px.mu, rtol=1e-4)
    close(mine.log_theta.exp().expand_as(px.theta), px.theta, rtol=1e-4)
    if scvi.settings.likelihood == "zinb":
        close(mine.dropout_logit, px.zi_logits)
    if scvi.settings.library == "latent":
        prior = (minibatch.batch @ scvi.library.mean, minibatch.batch @ scvi.library.variance)
        close(prior[0], found["pl"].loc[:, 0])
        close(prior[1], found["pl"].variance[:, 0])


@torch.no_grad()
def assert_same_second_level(ours: SCANVI, theirs) -> None:
    z = torch.randn(20, ours.scvi.settings.n_latent)
    close(ours.classify(z), theirs.classifier(z).log_softmax(1))
    y = torch.eye(CLASSES)[torch.arange(20) % CLASSES]
    mean, variance = ours.encoder(z, y)
    q, _ = theirs.encoder_z2_z1(z, y.argmax(1, keepdim=True))
    close(mean, q.loc)
    close(variance, q.variance)
    for pair in zip(ours.decoder(z, y), theirs.decoder_z1_z2(z, y.argmax(1)[:, None]), strict=True):
        close(*pair)


def close(one, other, rtol=1e-5, atol=1e-5):
    torch.testing.assert_close(one, other, rtol=rtol, atol=atol)


GRID = [
    *(
        {"likelihood": likelihood, "dispersion": dispersion}
        for likelihood in ("nb", "zinb", "poisson")
        for dispersion in ("gene", "gene-batch", "gene-label", "gene-cell")
    ),
    *(
        {"likelihood": "zinb", "library": library, "n_layers": n_layers, "encode_covariates": seen}
        for library in ("observed", "latent")
        for n_layers in (1, 2, 3, 4)
        for seen in (False, True)
    ),
    *(
        {
            "decoder": "linear",
            "likelihood": likelihood,
            "dispersion": dispersion,
            "library": library,
        }
        for likelihood in ("nb", "zinb", "poisson")
        for dispersion in ("gene", "gene-batch")
        for library in ("observed", "latent")
    ),
]


def both_ways(ours, theirs, cells: Cells) -> None:
    """Compare after a way there, and after a way back of other weights."""
    theirs.load_state_dict(to_scvi_tools(ours))
    assert_same(ours, theirs, cells)
    stir(theirs)
    scvi = ours.scvi if isinstance(ours, SCANVI) else ours
    back = from_scvi_tools(theirs.state_dict(), scvi.settings, cells.sizes)
    assert_same(back, theirs, cells)
    if isinstance(back, SCANVI):
        assert_same_second_level(back, theirs)


@pytest.mark.parametrize("batches", [1, BATCHES])
@pytest.mark.parametrize("options", GRID, ids=lambda options: " ".join(map(str, options.values())))
def test_scvi_says_the_same_on_both_sides(options, batches):
    settings = Scvi(n_latent=5, n_hidden=16, **options)
    cells = make_cells(batches, covariates=settings.decoder != "linear")
    model = SCVI(cells.sizes, settings)
    stir(model)
    standardise(model, cells)
    both_ways(model, peer(settings, cells), cells)


@pytest.mark.parametrize("n_layers", [1, 2, 4])
@pytest.mark.parametrize("covariates", [False, True])
@pytest.mark.parametrize("library", ["observed", "latent"])
def test_scanvi_says_the_same_on_both_sides(n_layers, covariates, library):
    options = {"n_layers": n_layers, "encode_covariates": covariates, "library": library}
    settings = Scvi(n_latent=5, n_hidden=16, dispersion="gene-batch", **options)
    cells = make_cells(covariates=covariates)
    model = SCANVI(SCVI(cells.sizes, settings), CLASSES, Scanvi())
    stir(model)
    standardise(model.scvi, cells)
    theirs = peer(settings, cells, CLASSES)
    theirs.load_state_dict(to_scvi_tools(model))
    assert_same_second_level(model.eval(), theirs.eval())
    both_ways(model, theirs, cells)


def test_a_way_there_and_back_changes_no_latent_state():
    cells = make_cells()
    settings = Scvi(n_latent=5, n_hidden=16, encode_covariates=True, library="latent")
    model = SCVI(cells.sizes, settings)
    stir(model)
    standardise(model, cells)
    back = from_scvi_tools(to_scvi_tools(model), settings, cells.sizes)
    minibatch = cells.take(np.arange(64))
    close(back.latent(minibatch), model.eval().latent(minibatch))
