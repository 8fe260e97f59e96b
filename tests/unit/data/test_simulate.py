import hashlib
from dataclasses import fields, replace

import numpy as np
import pytest
import scipy.stats
import yaml

from sclatent.data.simulate import Simulation, names, simulate
from sclatent.errors import InputError

SMALL = Simulation(n_cells=900, n_genes=300, low_quality=0.0)
PLAIN = replace(SMALL, private_type=False, batch_strength=0.0)


def dense(adata):
    return adata.X.toarray().astype(float)


def test_the_settings_are_those_of_the_schema(root):
    schema = yaml.safe_load((root / "workflow/schemas/config.schema.yaml").read_text())
    simulate_keys = schema["$defs"]["dataset"]["properties"]["simulate"]["properties"]
    defaults = {field.name: field.default for field in fields(Simulation)}
    assert {key: value["default"] for key, value in simulate_keys.items()} == defaults


def test_counts_are_canonical_int32_csr_and_the_truth_lies_beside_them():
    adata = simulate(SMALL)
    assert adata.X.format == "csr"
    assert adata.X.dtype == np.int32
    assert adata.X.has_canonical_format
    assert adata.X.data.min() >= 1
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    assert list(adata.varm["true_log_fold_change"].columns) == names("type", 6)
    assert list(adata.varm["true_batch_effect"].columns) == names("batch", 3)
    assert adata.var["true_share"].sum() == pytest.approx(1)


def test_the_variance_of_a_gene_is_its_mean_plus_mean_squared_over_theta():
    settings = Simulation(
        n_cells=6000, n_genes=100, n_batches=1, n_types=2, type_strength=0.0, batch_strength=0.0
    )
    adata = simulate(replace(settings, library_spread=0.0, low_quality=0.0, library_size=1000))
    counts = dense(adata)
    mu, theta = 1000 * adata.var["true_share"], adata.var["true_theta"]
    variance = mu + mu**2 / theta
    z = (counts.mean(axis=0) - mu) / np.sqrt(variance / len(counts))
    assert np.abs(z).max() < 5
    assert np.std(z) == pytest.approx(1, abs=0.3)
    common = mu > 1
    np.testing.assert_allclose(counts.var(axis=0)[common], variance[common], rtol=0.35)
    assert np.mean(counts.var(axis=0)[common] / variance[common]) == pytest.approx(1, abs=0.05)


def test_differential_genes_are_recovered_by_the_log_ratio_of_means():
    adata = simulate(replace(PLAIN, n_cells=3000, n_types=2, de_share=0.3, library_size=5000))
    is_first = (adata.obs["true_cell_type"] == "type1").to_numpy()
    share = dense(adata) / adata.obs["true_library_size"].to_numpy()[:, None]
    seen = adata.var["true_share"].to_numpy() * 5000 > 3
    found = np.log(share[is_first].mean(axis=0) / share[~is_first].mean(axis=0))[seen]
    fold = adata.varm["true_log_fold_change"].to_numpy()
    true = (fold[:, 0] - fold[:, 1])[seen]
    assert np.corrcoef(found, true)[0, 1] > 0.9
    slope, offset = np.polyfit(true, found, 1)
    assert slope == pytest.approx(1, abs=0.1)
    assert offset == pytest.approx(0, abs=0.1)


def test_differential_genes_have_the_share_and_strength_asked_for():
    fold = simulate(replace(SMALL, n_genes=2000, n_cells=100, n_types=40)).varm[
        "true_log_fold_change"
    ]
    effects = fold.to_numpy()[fold.to_numpy() != 0]
    assert effects.size / fold.size == pytest.approx(SMALL.de_share, rel=0.1)
    assert effects.std() == pytest.approx(SMALL.type_strength, rel=0.1)


def batch_p_values(adata):
    share = np.log1p(dense(adata) / adata.obs["true_library_size"].to_numpy()[:, None] * 1e4)
    one = share[(adata.obs["true_cell_type"] == "type1").to_numpy()]
    batch = adata.obs.loc[adata.obs["true_cell_type"] == "type1", "batch"].to_numpy()
    seen = one.mean(axis=0) > 1
    groups = [one[batch == name][:, seen] for name in np.unique(batch)]
    return scipy.stats.f_oneway(*groups).pvalue


def test_without_batch_strength_there_is_no_batch_effect():
    null = batch_p_values(simulate(PLAIN))
    assert scipy.stats.kstest(null, "uniform").pvalue > 0.001
    assert np.mean(batch_p_values(simulate(replace(PLAIN, batch_strength=0.5))) < 0.01) > 0.5


def test_batch_effects_have_the_strength_asked_for():
    effect = simulate(replace(SMALL, n_batches=3, batch_strength=0.4, n_genes=2000)).varm[
        "true_batch_effect"
    ]
    assert np.sqrt((effect.to_numpy() ** 2).mean()) == pytest.approx(0.4, rel=0.05)
    np.testing.assert_allclose(effect.mean(axis=1), 0, atol=1e-12)


def test_batches_of_one_group_are_alike():
    nested = replace(PLAIN, n_batches=4, n_groups=2, group_strength=0.8, batch_strength=0.1)
    adata = simulate(nested)
    effect = adata.varm["true_batch_effect"].to_numpy()
    assert np.std(effect[:, 0] - effect[:, 1]) < 0.3 < np.std(effect[:, 1] - effect[:, 2])
    assert adata.obs.groupby("true_group", observed=True)["batch"].nunique().tolist() == [2, 2]


@pytest.mark.parametrize("change", [{"n_groups": 2}, {"group_strength": 0.7}])
def test_one_group_or_no_strength_of_groups_changes_nothing(change):
    assert (simulate(SMALL).X != simulate(replace(SMALL, **change)).X).nnz == 0


def test_without_a_covariate_the_random_stream_is_the_one_it_always_was():
    adata = simulate(SMALL)
    parts = (adata.X.data, adata.X.indices, adata.X.indptr)
    content = b"".join(part.astype("<i4").tobytes() for part in parts)
    assert hashlib.sha256(content).hexdigest().startswith("5f32906ffb4b49701ec2025af91c6de5")
    assert "protocol" not in adata.obs
    assert "true_covariate_effect" not in adata.varm


def test_the_covariate_changes_nothing_but_the_counts():
    plain, planted = simulate(SMALL), simulate(replace(SMALL, covariate_strength=0.5))
    assert (plain.X != planted.X).nnz > 0
    assert set(planted.obs) - set(plain.obs) == {"protocol"}
    assert planted.obs[list(plain.obs)].equals(plain.obs)
    assert planted.var.equals(plain.var)
    for name in plain.varm:
        assert planted.varm[name].equals(plain.varm[name])


def test_the_effect_of_the_covariate_has_the_strength_asked_for_and_is_in_the_counts():
    settings = replace(PLAIN, n_cells=4000, n_genes=1000, covariate_strength=0.6)
    adata = simulate(replace(settings, type_strength=0.0, library_size=5000))
    effect = adata.varm["true_covariate_effect"]
    assert list(effect.columns) == list(adata.obs["protocol"].cat.categories)
    true = (effect["protocol2"] - effect["protocol1"]).to_numpy()
    assert np.std(true) == pytest.approx(0.6, rel=0.1)
    np.testing.assert_array_equal(effect.mean(axis=1), 0)
    second = (adata.obs["protocol"] == "protocol2").to_numpy()
    counts = dense(adata)
    seen = counts.mean(axis=0) > 1
    found = np.log(counts[second].mean(axis=0)[seen] / counts[~second].mean(axis=0)[seen])
    slope, _ = np.polyfit(true[seen], found, 1)
    assert slope == pytest.approx(1, abs=0.05)
    assert np.corrcoef(true[seen], found)[0, 1] > 0.95


def test_the_covariate_is_drawn_whatever_the_batch_and_the_type():
    obs = simulate(replace(SMALL, n_cells=4000, covariate_strength=0.5)).obs
    for other in ("batch", "true_cell_type", "true_quality"):
        table = obs.groupby(["protocol", other], observed=True).size().unstack()
        assert scipy.stats.chi2_contingency(table).pvalue > 0.001
    assert obs["protocol"].value_counts(normalize=True).min() > 0.45


def test_more_groups_than_batches_are_refused():
    with pytest.raises(InputError, match="4 groups cannot be made of 3 batches"):
        Simulation(n_groups=4)


def test_the_private_type_is_in_the_last_batch_only():
    adata = simulate(SMALL)
    where = adata.obs.loc[adata.obs["true_cell_type"] == "type6", "batch"]
    assert set(where) == {"batch3"}
    shared = adata.obs.loc[adata.obs["true_cell_type"] == "type1", "batch"]
    assert shared.nunique() == 3
    everywhere = simulate(replace(SMALL, private_type=False)).obs
    assert everywhere.loc[everywhere["true_cell_type"] == "type6", "batch"].nunique() == 3


def test_the_mixture_of_types_differs_between_batches():
    obs = simulate(replace(SMALL, n_cells=3000)).obs
    table = obs.groupby(["batch", "true_cell_type"], observed=False).size().unstack()
    assert scipy.stats.chi2_contingency(table.iloc[:, :5]).pvalue < 1e-6


def test_cells_have_the_library_sizes_drawn_for_them():
    adata = simulate(replace(PLAIN, n_cells=2000, n_genes=2000))
    log_library = np.log(adata.obs["true_library_size"])
    assert np.exp(log_library.median()) == pytest.approx(2000, rel=0.05)
    assert log_library.std() == pytest.approx(0.4, abs=0.03)
    total = dense(adata).sum(axis=1)
    assert np.mean(total / adata.obs["true_library_size"]) == pytest.approx(1, abs=0.02)


def test_dropout_zeroes_the_share_of_counts_asked_for():
    whole, dropped = simulate(SMALL), simulate(replace(SMALL, dropout=0.3))
    assert dropped.X.nnz / whole.X.nnz == pytest.approx(0.7, abs=0.02)
    assert (dropped.X > whole.X).nnz == 0


def test_dying_cells_are_small_and_mitochondrial():
    adata = simulate(replace(SMALL, low_quality=0.1))
    dying = (adata.obs["true_quality"] == "dying").to_numpy()
    assert dying.mean() == pytest.approx(0.1, abs=0.04)
    counts = dense(adata)
    share = counts[:, adata.var_names.str.startswith("MT-")].sum(axis=1) / counts.sum(axis=1)
    assert np.median(share[dying]) > 3 * np.median(share[~dying])
    assert np.median(counts[dying].sum(axis=1)) < 0.5 * np.median(counts[~dying].sum(axis=1))
    assert set(simulate(SMALL).obs["true_quality"]) == {"good"}


def test_the_share_of_hidden_labels_is_the_one_asked_for():
    obs = simulate(replace(SMALL, unlabelled=0.4)).obs
    hidden = obs["cell_type"] == "Unknown"
    assert hidden.mean() == pytest.approx(0.4, abs=0.06)
    assert (obs["cell_type"][~hidden].astype(str) == obs["true_cell_type"][~hidden]).all()
    assert "Unknown" not in set(simulate(replace(SMALL, unlabelled=0.0)).obs["cell_type"])


def test_a_seed_gives_the_same_counts_and_another_seed_others():
    assert (simulate(SMALL).X != simulate(SMALL).X).nnz == 0
    assert (simulate(SMALL).X != simulate(replace(SMALL, seed=1)).X).nnz > 0


def test_cells_are_drawn_in_blocks(monkeypatch):
    monkeypatch.setattr("sclatent.data.simulate.BLOCK", 100 * 300)
    adata = simulate(SMALL)
    assert adata.shape == (900, 300)
    assert np.all(np.asarray(adata.X.sum(axis=1)) > 0)
