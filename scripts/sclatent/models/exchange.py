"""The weights of scVI and scANVI under the names that scvi-tools gives them, and back.

Both projects build the same networks (scvi-tools 1.4: `VAE`, `LDVAE`, `SCANVAE`), so a trained
model can change sides. Most tensors only change their names. The others:

- scvi-tools gives continuous covariates to the networks as they are, where ours are standardised
  first: the standardisation moves into the weights that read them;
- theta has a row per gene there, a column per gene here;
- scvi-tools keeps networks that an option does not use (the encoder of the library size, the heads
  for theta and for extra zeros): they get fresh weights, and are dropped on the way back;
- with `gene-label` our last row of theta is for hidden labels; there every label has a column.

What stays different: theta is bounded here, which moves with the weights except for `gene-cell`;
the variance of p(z1|z2,y) is at least 1e-8 here, which only training could notice.

What scvi-tools has no weights for is left out: the adversary and a mixture prior, neither of which
has a part in latent states or expression.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from sclatent.errors import InputError, problem
from sclatent.models.dca import DCA
from sclatent.models.dispersions import HIGHEST, LOWEST
from sclatent.models.scanvi import SCANVI, Scanvi
from sclatent.models.scvi import SCVI, Scvi
from sclatent.training.loader import Sizes


def to_scvi_tools(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's weights as the state dict of the module of scvi-tools.

    Parameters
    ----------
    model
        An SCVI, which becomes a `VAE` (an `LDVAE` with a linear decoder), or a SCANVI, which
        becomes a `SCANVAE`.

    Returns
    -------
    dict
        For ``load_state_dict`` of a module of the same options and sizes, on the CPU. With
        `gene-label` it has one label more than the model has classes: the last, for hidden labels.

    Raises
    ------
    InputError
        When scvi-tools has no such model.
    """
    refuse_unknown(model)
    both = isinstance(model, SCANVI)
    scvi = model.scvi if both else model
    own = {name: tensor.cpu().clone() for name, tensor in scvi.state_dict().items()}
    unstandardise(own, scvi)
    found = fresh(scvi) | renamed(own, names_of_scvi(scvi.settings))
    if scvi.settings.dispersion != "gene-cell":
        found["px_r"] = own["dispersion.log_theta"].clamp(LOWEST, HIGHEST).t().contiguous()
    if scvi.settings.library == "latent":
        found["library_log_means"] = own["library.mean"][None]
        found["library_log_vars"] = own["library.variance"][None]
    if both:
        above = {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}
        found |= renamed(above, names_of_scanvi(scvi.settings))
        found["y_prior"] = torch.full((1, model.n_labels), 1 / model.n_labels)
    return found


def from_scvi_tools(state_dict: dict[str, Tensor], settings: Scvi, sizes: Sizes) -> SCVI | SCANVI:
    """Return a model with the weights of a module of scvi-tools, ready for use.

    Parameters
    ----------
    state_dict
        Of a `VAE`, `LDVAE` or `SCANVAE`. The last has a classifier and becomes a SCANVI.
    settings
        The module's options in the words of this project; prior and adversary at their defaults.
    sizes
        Of the data that the module was built for. The labels are the classes of scANVI; with
        `gene-label` they may leave out the last one of the module, which is then for hidden labels.
        Where they leave out none, the log theta of a hidden label is the mean over the labels.

    Raises
    ------
    InputError
        When the weights do not fit the options and sizes, or are not finite.
    """
    given = {name: tensor for name, tensor in state_dict.items() if name != "pyro_param_store"}
    both = any(name.startswith("classifier.") for name in given)
    scvi = SCVI(sizes, settings)
    model = SCANVI(scvi, sizes.labels, Scanvi()) if both else scvi
    theta = given.get("px_r")
    if (
        settings.dispersion == "gene-label"
        and theta is not None
        and theta.shape[-1] == sizes.labels
    ):
        given["px_r"] = torch.cat([theta, theta.mean(-1, keepdim=True)], -1)
    check_fit(given, to_scvi_tools(model))
    own = scvi.state_dict()
    own |= renamed(given, [(theirs, ours) for ours, theirs in names_of_scvi(settings)])
    if settings.dispersion != "gene-cell":
        own["dispersion.log_theta"] = given["px_r"].t()
    if settings.library == "latent":
        own["library.mean"], own["library.variance"] = (
            given[f"library_log_{name}"][0] for name in ("means", "vars")
        )
    scvi.load_state_dict(own)
    if both:
        above = [(theirs, ours) for ours, theirs in names_of_scanvi(settings)]
        model.load_state_dict(model.state_dict() | renamed(given, above))
    return model.eval()


def refuse_unknown(model: nn.Module) -> None:
    """Raise where scvi-tools has no such model."""
    if isinstance(model, DCA):
        refuse("E516", "scvi-tools has no DCA", "export a latent of scvi or scanvi")
    both = isinstance(model, SCANVI)
    scvi = model.scvi if both else model
    sizes, settings = scvi.sizes, scvi.settings
    if both and settings.dispersion == "gene-label":
        refuse("E516", "scANVI of scvi-tools has no theta per gene and label", "dispersion: gene")
    if settings.decoder != "linear":
        return
    if both:
        refuse("E516", "scANVI of scvi-tools has no linear decoder", "decoder: layers")
    if sizes.categorical or sizes.continuous or (settings.encode_covariates and sizes.columns):
        what = "its LinearSCVI knows no covariates, and the batch in its decoder only"
        refuse("E516", what, "decoder: layers")
    if settings.dispersion in ("gene-cell", "gene-label"):
        refuse(
            "E516", f"its LinearSCVI has no dispersion {settings.dispersion}", "dispersion: gene"
        )


def refuse(code: str, what: str, fix: str) -> None:
    """Raise that a model cannot change sides."""
    raise InputError(problem(code, "exchange with scvi-tools", what, fix))


def names_of_scvi(settings: Scvi) -> list[tuple[str, str]]:
    """Return how the names of scVI's tensors begin, here and in scvi-tools."""
    names = names_of_gaussian("encoder", "z_encoder", settings.n_layers)
    if settings.library == "latent":
        names += names_of_gaussian("library.encoder", "l_encoder", 1)
    zinb = settings.likelihood == "zinb"
    if settings.decoder == "linear":
        heads = [("share", "factor_regressor"), *[("dropout_logit", "px_dropout_decoder")] * zinb]
        return names + [
            (f"{ours}.{part}.", f"decoder.{theirs}.fc_layers.Layer 0.{part}.")
            for ours, theirs in heads
            for part in (0, 1)
        ]
    names += names_of_layers("decoder", "decoder.px_decoder", settings.n_layers)
    names += [("share.", "decoder.px_scale_decoder.0.")]
    names += [("dropout_logit.", "decoder.px_dropout_decoder.")] * zinb
    names += [("dispersion.log_theta.", "decoder.px_r_decoder.")] * (
        settings.dispersion == "gene-cell"
    )
    return names


def names_of_scanvi(settings: Scvi) -> list[tuple[str, str]]:
    """Return the same of what scANVI has on top of scVI."""
    return [
        *names_of_layers("classifier", "classifier.classifier.0", settings.n_layers),
        ("logits.", "classifier.classifier.1."),
        *names_of_gaussian("encoder", "encoder_z2_z1", settings.n_layers),
        *names_of_gaussian("decoder", "decoder_z1_z2", settings.n_layers, "decoder"),
    ]


def names_of_gaussian(ours: str, theirs: str, n_layers: int, part: str = "encoder") -> list:
    """Return the same of a normal distribution with a mean and a variance."""
    return [
        *names_of_layers(f"{ours}.layers", f"{theirs}.{part}", n_layers),
        (f"{ours}.mean.", f"{theirs}.mean_{part}."),
        (f"{ours}.log_variance.", f"{theirs}.var_{part}."),
    ]


def names_of_layers(ours: str, theirs: str, n_layers: int) -> list[tuple[str, str]]:
    """Return the same of fully connected layers: their linear maps and normalisations."""
    return [
        (f"{ours}.{part}.{layer}.", f"{theirs}.fc_layers.Layer {layer}.{place}.")
        for layer in range(n_layers)
        for place, part in enumerate(("linear", "norm"))
    ]


def renamed(tensors: dict, names: Iterable[tuple[str, str]]) -> dict:
    """Return the tensors whose names begin as the first of a pair, named as the second."""
    return {
        there + name.removeprefix(here): tensor
        for here, there in names
        for name, tensor in tensors.items()
        if name.startswith(here)
    }


def fresh(scvi: SCVI) -> dict[str, Tensor]:
    """Return untrained weights of all that scvi-tools keeps, used or not, under its names."""
    linear = scvi.settings.decoder == "linear"
    everything = replace(
        scvi.settings,
        likelihood="zinb",
        library="latent",
        dispersion="gene" if linear else "gene-cell",
        prior="normal",
        adversary=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = SCVI(scvi.sizes, everything).state_dict()
    return renamed(state, names_of_scvi(everything))


def unstandardise(own: dict[str, Tensor], scvi: SCVI) -> None:
    """Change weights in place so that they read continuous covariates as they are.

    With mean m and standard deviation s, W (v - m) / s + b = (W / s) v + (b - (W / s) m).
    """
    n_numbers, settings = scvi.sizes.continuous, scvi.settings
    if not n_numbers:
        return
    readers = {"decoder.linear.0": settings.n_latent}
    if settings.encode_covariates:
        readers["encoder.layers.linear.0"] = scvi.sizes.genes
        if settings.library == "latent":
            readers["library.encoder.layers.linear.0"] = scvi.sizes.genes
    for name, start in readers.items():
        weight, bias = own[f"{name}.weight"], own[f"{name}.bias"]
        weight[:, start : start + n_numbers] /= own["number_sd"]
        bias -= weight[:, start : start + n_numbers] @ own["number_mean"]


def check_fit(given: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise where weights have other names or shapes than expected, or values that are none."""
    fix = "give a model that scvi-tools saved, whole, with options that both projects have"
    for name in sorted(expected.keys() ^ given.keys()):
        refuse(
            "E517", f"the weights {'lack' if name in expected else 'have an unknown'} {name}", fix
        )
    for name, tensor in given.items():
        shapes = tuple(tensor.shape), tuple(expected[name].shape)
        if shapes[0] != shapes[1]:
            refuse("E517", f"{name} has shape {shapes[0]}, where the options need {shapes[1]}", fix)
        if not torch.isfinite(tensor).all():
            refuse(
                "E518", f"{name} has values that are not finite", "give a model that trained well"
            )
    if "y_prior" in given and not torch.allclose(given["y_prior"], expected["y_prior"]):
        refuse("E513", "the prior of its cell types is not uniform", fix)
