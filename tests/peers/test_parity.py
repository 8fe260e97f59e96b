"""The same weights, data and noise give the same losses and gradients here and in scvi-tools.

In double precision, so that a difference is one of formulas. scvi-tools adds 1e-8 inside its
logarithms, which shows where a rate comes near that; the weights here keep clear of it.
"""

import copy
import inspect

import numpy as np
import pytest
import scvi
import torch
import yaml
from scipy.sparse import csr_matrix
from scvi.model._utils import _init_library_size, get_max_epochs_heuristic
from scvi.module import SCANVAE, VAE
from scvi.module._vae import LDVAE
from scvi.train import SemiSupervisedTrainingPlan, TrainingPlan
from scvi.train._trainingplans import _compute_kl_weight

from sclatent.models.exchange import from_scvi_tools, to_scvi_tools
from sclatent.models.libraries import LatentLibrary
from sclatent.models.scanvi import Scanvi
from sclatent.models.scvi import SCVI, Scvi
from sclatent.training.checkpoint import NO_CHECKPOINT
from sclatent.training.loader import Cells, Covariates, Sizes
from sclatent.training.loop import run_epoch
from sclatent.training.plan import Schedule, Training
from sclatent.training.run import Best, Run

N_CELLS, N_GENES, N_BATCHES, N_TYPES = 60, 35, 3, 4
KL_WEIGHT = 0.3
CATEGORIES = (2, 4)


@pytest.fixture(scope="module")
def cells() -> Cells:
    """Cells with a batch, labels of which some are hidden, two categories and two numbers."""
    rng = np.random.default_rng(0)
    label = rng.integers(-1, N_TYPES, N_CELLS)
    rate = rng.lognormal(0, 1, N_GENES) * rng.lognormal(0, 0.5, (N_CELLS, 1))
    rate *= 1 + 2 * (label[:, None] == np.arange(N_GENES) % 5)
    codes = [rng.integers(n, size=N_CELLS) for n in CATEGORIES]
    one_hot = np.concatenate(
        [np.eye(n, dtype=np.float32)[code] for n, code in zip(CATEGORIES, codes, strict=True)], 1
    )
    numbers = rng.normal([5, -2], [2, 0.3], (N_CELLS, 2)).astype(np.float32)
    return Cells(
        csr_matrix(rng.poisson(rate).astype(np.int32)),
        rng.integers(N_BATCHES, size=N_CELLS),
        label,
        list("abc"),
        covariates=Covariates({}, ["age", "dose"], one_hot, numbers),
        classes=list("wxyz"),
    )


@pytest.fixture
def doubles(monkeypatch):
    """Keep scvi-tools, whose one-hot columns are always single, in double precision."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def without_covariates(cells: Cells) -> Cells:
    """Return the same cells with their batch only."""
    nothing = np.zeros((N_CELLS, 0), dtype=np.float32)
    covariates = Covariates({}, [], nothing, nothing)
    return Cells(cells.counts, cells.batch, cells.label, cells.batches, "cpu", covariates, "wxyz")


def in_doubles(minibatch):
    """Return a minibatch with double precision."""
    names = ("library_size", "batch", "categorical", "continuous")
    doubled = minibatch.replace(**{name: getattr(minibatch, name).double() for name in names})
    vars(doubled)["counts"] = minibatch.counts.double()
    return doubled


def tensors_of(minibatch) -> dict:
    """Return a minibatch as scvi-tools has it; a hidden label is a category of its own."""
    first = np.r_[0, np.cumsum(CATEGORIES)[:-1]]
    label = torch.where(minibatch.label < 0, N_TYPES, minibatch.label)
    tensors = {
        "X": minibatch.counts,
        "batch": minibatch.batch.argmax(1, keepdim=True),
        "labels": label[:, None],
    }
    if minibatch.continuous.shape[1]:
        codes = [
            minibatch.categorical[:, start : start + n].argmax(1)
            for start, n in zip(first, CATEGORIES, strict=True)
        ]
        tensors["extra_categorical_covs"] = torch.stack(codes, 1)
        tensors["extra_continuous_covs"] = minibatch.continuous
    return tensors


def module_of(settings: Scvi, sizes: Sizes, n_labels: int = N_TYPES + 1, module=VAE):
    """Return the module of scvi-tools with these options, all its weights and statistics random."""
    torch.manual_seed(7)
    options = {
        "n_input": sizes.genes,
        "n_batch": sizes.batches,
        "n_labels": n_labels,
        "n_hidden": settings.n_hidden,
        "n_latent": settings.n_latent,
        "dropout_rate": settings.dropout,
        "dispersion": settings.dispersion,
        "gene_likelihood": settings.likelihood,
        "use_observed_lib_size": settings.library == "observed",
        "library_log_means": np.linspace(3.5, 4.5, sizes.batches)[None],
        "library_log_vars": np.linspace(0.1, 0.4, sizes.batches)[None],
    }
    if settings.decoder == "linear":
        built = LDVAE(n_layers_encoder=settings.n_layers, **options)
    else:
        options |= {"encode_covariates": settings.encode_covariates, "n_layers": settings.n_layers}
        if sizes.continuous:
            options |= {"n_continuous_cov": sizes.continuous, "n_cats_per_cov": list(CATEGORIES)}
        built = module(**options)
    with torch.no_grad():
        for name, tensor in built.state_dict().items():
            if name.endswith("running_mean"):
                tensor.normal_(0, 0.1)
            elif name.endswith("running_var"):
                tensor.uniform_(0.7, 1.3)
            elif tensor.is_floating_point() and not name.startswith(("library", "y_prior")):
                tensor.add_(0.1 * torch.randn_like(tensor))
    return built.double()


def taken_over(module, settings: Scvi, sizes: Sizes):
    """Return a module of scvi-tools as our model."""
    weights = module.state_dict()
    singles = {name: weight.to(torch.float32) for name, weight in weights.items()}
    return from_scvi_tools(singles, settings, sizes).double()


def gradients_of(module, settings: Scvi, sizes: Sizes) -> dict:
    """Return the gradients of a module of scvi-tools under our names."""
    gradients = copy.deepcopy(module)
    pairs = zip(gradients.parameters(), module.parameters(), strict=True)
    for value, parameter in pairs:
        if parameter.requires_grad:
            known = parameter.grad is not None
            value.data = parameter.grad.clone() if known else torch.zeros_like(value)
    return dict(taken_over(gradients, settings, sizes).named_parameters())


def assert_same_gradients(model, expected: dict) -> None:
    """Compare the gradients of every tensor with the largest of them all as the unit."""
    known = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    largest = max(gradient.norm() for gradient in expected.values())
    assert largest > 0
    for name, gradient in known.items():
        gradient = torch.zeros_like(expected[name]) if gradient is None else gradient
        difference = (gradient - expected[name]).norm()
        assert difference <= 1e-4 * expected[name].norm() + 1e-9 * largest, name


def assert_same_statistics(model, module, settings: Scvi, sizes: Sizes) -> None:
    """Compare what batch normalisation has learnt from the minibatch."""
    expected = dict(taken_over(module, settings, sizes).named_buffers())
    for name, value in model.named_buffers():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6, msg=name)


def compare_scvi(settings: Scvi, cells: Cells, mode: str) -> None:
    """Compare the terms of the loss, and the gradients of its total."""
    module = module_of(settings, cells.sizes)
    model = taken_over(module, settings, cells.sizes)
    minibatch = in_doubles(cells.take(np.arange(40)))
    getattr(module, mode)(), getattr(model, mode)()
    torch.manual_seed(1)
    theirs = module(tensors_of(minibatch), loss_kwargs={"kl_weight": KL_WEIGHT})[2]
    torch.manual_seed(1)
    ours = model.loss(minibatch, KL_WEIGHT)
    theirs.loss.backward(), ours.total.backward()
    assert_same_statistics(model, module, settings, cells.sizes)
    torch.manual_seed(1)
    unweighted = model.loss(minibatch, 0.0)
    kl_library = (unweighted.total - unweighted.reconstruction).item()
    kl_z = (ours.kl - kl_library).item()
    expected = {name: term.mean().item() for name, term in theirs.kl_local.items()}
    reconstruction = theirs.reconstruction_loss["reconstruction_loss"].mean().item()
    assert ours.reconstruction.item() == pytest.approx(reconstruction, rel=1e-5)
    assert kl_z == pytest.approx(expected["kl_divergence_z"], rel=1e-5)
    assert kl_library == pytest.approx(expected["kl_divergence_l"], rel=1e-5, abs=1e-9)
    assert (expected["kl_divergence_l"] > 0) == (settings.library == "latent")
    assert ours.total.item() == pytest.approx(theirs.loss.item(), rel=1e-5)
    assert_same_gradients(model, gradients_of(module, settings, cells.sizes))


def small(**options) -> Scvi:
    """Return the settings of a small model that draws nothing but its latent variables."""
    return Scvi(**{"n_latent": 5, "n_hidden": 16, "dropout": 0.0} | options)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("library", ["observed", "latent"])
@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_every_term_of_the_loss_is_that_of_scvi_tools(cells, likelihood, library, mode):
    settings = small(likelihood=likelihood, library=library)
    compare_scvi(settings, without_covariates(cells), mode)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
@pytest.mark.parametrize("dispersion", ["gene-batch", "gene-label", "gene-cell"])
def test_every_dispersion_is_that_of_scvi_tools(cells, likelihood, dispersion, mode):
    settings = small(likelihood=likelihood, dispersion=dispersion)
    compare_scvi(settings, without_covariates(cells), mode)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("library", ["observed", "latent"])
@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("encode_covariates", [False, True])
def test_covariates_enter_as_in_scvi_tools(cells, encode_covariates, n_layers, library, mode):
    settings = small(encode_covariates=encode_covariates, n_layers=n_layers, library=library)
    compare_scvi(settings, cells, mode)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("library", ["observed", "latent"])
@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_a_linear_decoder_is_that_of_scvi_tools(cells, n_layers, likelihood, library, mode):
    settings = small(decoder="linear", likelihood=likelihood, library=library, n_layers=n_layers)
    compare_scvi(settings, without_covariates(cells), mode)


@pytest.mark.usefixtures("doubles")
def test_a_single_batch_is_no_covariate_in_either(cells):
    alone = without_covariates(cells)
    one = Cells(alone.counts, np.zeros(N_CELLS, int), alone.label, ["a"], classes="wxyz")
    compare_scvi(small(library="latent"), one, "train")


@pytest.mark.usefixtures("doubles")
def test_our_weights_give_scvi_tools_the_same_loss(cells):
    settings = small(library="latent", encode_covariates=True, start="random")
    torch.manual_seed(3)
    model = SCVI(cells.sizes, settings)
    model.start_from(cells, np.arange(N_CELLS), seed=3)
    module = module_of(settings, cells.sizes).float()
    module.load_state_dict(to_scvi_tools(model))
    model.double().eval(), module.double().eval()
    minibatch = in_doubles(cells.take(np.arange(40)))
    torch.manual_seed(1)
    theirs = module(tensors_of(minibatch), loss_kwargs={"kl_weight": KL_WEIGHT})[2]
    torch.manual_seed(1)
    ours = model.loss(minibatch, KL_WEIGHT)
    assert ours.total.item() == pytest.approx(theirs.loss.item(), rel=1e-5)


def test_in_single_precision_the_losses_agree_too(cells):
    cells, settings = without_covariates(cells), small(library="latent", likelihood="zinb")
    module = module_of(settings, cells.sizes).float()
    model = from_scvi_tools(module.state_dict(), settings, cells.sizes).train()
    minibatch = cells.take(np.arange(40))
    torch.manual_seed(1)
    theirs = module(tensors_of(minibatch), loss_kwargs={"kl_weight": KL_WEIGHT})[2]
    torch.manual_seed(1)
    ours = model.loss(minibatch, KL_WEIGHT)
    assert ours.total.item() == pytest.approx(theirs.loss.item(), rel=1e-5)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("library", ["observed", "latent"])
@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_scanvi_and_its_classification_are_those_of_scvi_tools(
    cells, likelihood, library, n_layers, mode
):
    settings = small(likelihood=likelihood, library=library, n_layers=n_layers)
    seen = np.flatnonzero(cells.label >= 0)
    cells = without_covariates(cells)
    module = module_of(settings, cells.sizes, N_TYPES, SCANVAE)
    model = taken_over(module, settings, cells.sizes)
    assert model.settings == Scanvi()
    minibatch, labelled = (in_doubles(cells.take(rows)) for rows in (np.arange(40), seen[-25:]))
    getattr(module, mode)(), getattr(model, mode)()
    classification = {
        "labelled_tensors": tensors_of(labelled),
        "classification_ratio": model.settings.classification_weight,
    }
    weights = {"kl_weight": KL_WEIGHT, **classification}
    torch.manual_seed(1)
    theirs = module(tensors_of(minibatch), loss_kwargs=weights)[2]
    torch.manual_seed(1)
    both = minibatch.replace(labelled=labelled)
    vars(both)["counts"] = minibatch.counts
    ours = model.loss(both, KL_WEIGHT)
    theirs.loss.backward(), ours.total.backward()
    assert_same_statistics(model, module, settings, cells.sizes)
    elbo = theirs.reconstruction_loss["reconstruction_loss"] + theirs.kl_local["kl_local"]
    error = theirs.classification_loss.item() * model.settings.classification_weight
    rest = KL_WEIGHT - 1
    weighted = elbo.mean().item() + rest * theirs.kl_local["kl_local"].mean().item() + error
    assert theirs.loss.item() == pytest.approx(weighted)
    assert (ours.reconstruction + ours.kl).item() == pytest.approx(elbo.mean().item(), rel=1e-5)
    assert ours.total.item() == pytest.approx(theirs.loss.item(), rel=1e-5)
    assert_same_gradients(model, gradients_of(module, settings, cells.sizes))


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_training_under_the_preset_moves_the_weights_as_scvi_tools_does(cells, preset, likelihood):
    cells, settings = without_covariates(cells), small(likelihood=likelihood)
    module = module_of(settings, cells.sizes)
    model = taken_over(module, settings, cells.sizes)
    training, task = training_of(preset, "scvi"), TrainingPlan(module)
    rows = [np.arange(start, start + 20) for start in (0, 20, 40)]
    minibatches = [in_doubles(cells.take(part)) for part in rows]
    theirs, ours = task.configure_optimizers()["optimizer"], training.optimise(model)
    schedule = Schedule(4, len(minibatches), training)
    warmup = default(TrainingPlan, "n_epochs_kl_warmup")
    before = dict(model.named_parameters())["encoder.mean.weight"].detach().clone()
    module.train()
    torch.manual_seed(1)
    for epoch in range(4):
        weight = _compute_kl_weight(epoch, 0, warmup, None)
        for minibatch in minibatches:
            loss = module(tensors_of(minibatch), loss_kwargs={"kl_weight": weight})[2].loss
            theirs.zero_grad()
            loss.backward()
            theirs.step()
    torch.manual_seed(1)
    run = Run(model, ours, schedule, Best("last"), np.random.default_rng(0))
    for _ in range(4):
        run_epoch(run, minibatches, NO_CHECKPOINT)
    expected = dict(taken_over(module, settings, cells.sizes).named_parameters())
    moved = (expected["encoder.mean.weight"] - before).norm()
    assert moved > 1e-3
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight, expected[name], rtol=1e-5, atol=1e-6, msg=name)


# What `compat: scvi-tools` sets, asked of scvi-tools itself.


@pytest.fixture(scope="module")
def preset(root) -> dict:
    """The preset merged into the defaults, key by key, as the workflow does."""

    def merge(below, above):
        if not isinstance(below, dict) or not isinstance(above, dict):
            return above
        return below | {key: merge(below.get(key), value) for key, value in above.items()}

    paths = (root / "config/config.yaml", root / "config/presets/scvi-tools.yaml")
    return merge(*(yaml.safe_load(path.read_text()) for path in paths))


def model_of(preset: dict, section: str) -> dict:
    """Return the settings of a model."""
    return {key: value for key, value in preset[section].items() if key != "training"}


def training_of(preset: dict, section: str) -> Training:
    """Return how a model is trained."""
    return Training(**{**preset["training"], **preset[section]["training"]})


def default(function, name: str):
    """Return the default of an argument."""
    return inspect.signature(function).parameters[name].default


def test_the_preset_has_the_model_of_scvi_tools(preset):
    settings = Scvi(**model_of(preset, "scvi"))
    names = {"n_hidden": "n_hidden", "n_latent": "n_latent", "n_layers": "n_layers"}
    names |= {"dropout": "dropout_rate", "dispersion": "dispersion"}
    names |= {"likelihood": "gene_likelihood"}
    for model in (scvi.model.SCVI, scvi.model.SCANVI):
        theirs = {ours: default(model, name) for ours, name in names.items()}
        assert {name: getattr(settings, name) for name in names} == theirs
        assert default(model, "use_observed_lib_size") == (settings.library == "observed")
    assert settings.encode_covariates == default(VAE, "encode_covariates")
    assert (settings.decoder, settings.prior, settings.start) == ("layers", "normal", "random")
    assert settings.adversary == 0


def test_the_networks_have_the_constants_of_scvi_tools():
    settings = Scvi(n_latent=5, n_hidden=16)
    model, module = SCVI(Sizes(N_GENES, N_BATCHES), settings), VAE(N_GENES, N_BATCHES)
    theirs = {
        (part.momentum, part.eps, part.affine)
        for part in module.modules()
        if isinstance(part, torch.nn.BatchNorm1d)
    }
    ours = {
        (part.momentum, part.eps, part.affine)
        for part in model.modules()
        if isinstance(part, torch.nn.BatchNorm1d)
    }
    assert ours == theirs
    assert model.encoder.floor == module.z_encoder.var_eps
    dropouts = [part.p for part in module.modules() if isinstance(part, torch.nn.Dropout)]
    assert set(dropouts) == {settings.dropout}
    assert not [part for part in module.decoder.modules() if isinstance(part, torch.nn.Dropout)]


@pytest.mark.parametrize("section", ["scvi", "scanvi"])
def test_the_preset_has_the_optimiser_of_scvi_tools(preset, section):
    module = SCANVAE(N_GENES, N_BATCHES, N_TYPES)
    plan = TrainingPlan(module)
    if section == "scanvi":
        plan = SemiSupervisedTrainingPlan(module, N_TYPES)
    theirs = plan.configure_optimizers()
    training = training_of(preset, section)
    ours = training.optimise(SCVI(Sizes(N_GENES, N_BATCHES), Scvi(n_latent=5, n_hidden=16)))
    assert set(theirs) == {"optimizer"}  # no schedule of the step size
    assert type(ours) is type(theirs["optimizer"])
    for name in ("lr", "eps", "weight_decay", "betas", "amsgrad"):
        assert ours.param_groups[0][name] == theirs["optimizer"].param_groups[0][name], name
    assert training.schedule == "constant"
    assert training.clip_norm == training.clip_value == 0  # the trainer's default is None
    assert training.keep == "last"  # no early stopping
    assert not default(scvi.model.SCVI.train, "early_stopping")


@pytest.mark.parametrize("section", ["scvi", "scanvi"])
@pytest.mark.parametrize("n_epochs", [1, 10, 77, 400, 500])
def test_the_preset_has_the_kl_weight_of_scvi_tools(preset, section, n_epochs):
    plan = TrainingPlan if section == "scvi" else SemiSupervisedTrainingPlan
    warmup = [default(plan, f"n_{unit}_kl_warmup") for unit in ("epochs", "steps")]
    schedule = Schedule(n_epochs, 3, training_of(preset, section))
    for step in range(3 * n_epochs):
        theirs = _compute_kl_weight(step // 3, step, *warmup)
        assert schedule.kl_weight == pytest.approx(theirs, rel=1e-12)
        schedule.advance()


CELLS = sorted(
    {int(n) for n in np.geomspace(500, 2e6, 4000)}
    | {16_000_000 // divisor + shift for divisor in range(9, 801) for shift in (-1, 0, 1)}
)
"""Numbers of cells, those among them at which the rounded number of epochs changes."""


@pytest.mark.filterwarnings("ignore:The default number of maximum epochs")
def test_the_preset_has_the_number_of_epochs_of_scvi_tools(preset):
    training = training_of(preset, "scvi")
    for n in CELLS:
        n_validation = n // 10
        ours = training.n_epochs(n - n_validation, n_validation)
        assert ours == get_max_epochs_heuristic(n), n


@pytest.mark.filterwarnings("ignore:The default number of maximum epochs")
def test_the_preset_has_the_number_of_epochs_of_scanvi_after_scvi(preset):
    body = inspect.getsource(scvi.model.SCANVI.train)
    assert "int(np.min([10, np.max([2, round(max_epochs / 3.0)])]))" in body
    training = training_of(preset, "scanvi")
    for n in CELLS:
        theirs = int(np.min([10, np.max([2, round(get_max_epochs_heuristic(n) / 3.0)])]))
        assert training.n_epochs(n - n // 10, n // 10) == theirs, n


@pytest.mark.parametrize("section", ["scvi", "scanvi"])
def test_the_preset_has_the_minibatch_of_scvi_tools(preset, section):
    model = {"scvi": scvi.model.SCVI, "scanvi": scvi.model.SCANVI}[section]
    minibatch = training_of(preset, section).minibatch
    assert minibatch == scvi.settings.batch_size == default(model.train, "batch_size")


def test_the_preset_has_the_scanvi_of_scvi_tools(preset):
    settings = Scanvi(**model_of(preset, "scanvi"))
    ratio = default(SemiSupervisedTrainingPlan, "classification_ratio")
    assert settings.classification_weight == ratio
    assert settings.elbo == "scvi-tools"
    assert settings.labelled == "drawn"  # n_samples_per_label is None: all that have labels
    assert default(scvi.model.SCANVI.train, "n_samples_per_label") is None
    assert not default(scvi.model.SCANVI, "linear_classifier")


def test_the_prior_of_the_library_size_is_that_of_scvi_tools(cells):
    import anndata

    adata = anndata.AnnData(cells.counts.to_csr().astype(np.float32))
    adata.obs["batch"] = np.array(cells.batches)[cells.batch]
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    manager = scvi.model.SCVI(adata).adata_manager
    mean, variance = _init_library_size(manager, N_BATCHES)
    library = LatentLibrary(N_GENES, N_BATCHES, 8, 0, 0.1)
    library.start_from(cells.library_size, cells.batch)
    assert library.mean.numpy() == pytest.approx(mean[0], rel=1e-5)
    assert library.variance.numpy() == pytest.approx(variance[0], rel=1e-4)
