import numpy as np
import pandas as pd
import pytest

from sclatent import files
from sclatent.figures.style import plt
from sclatent.figures.training import loss_range, plot_training, read_curves


def curve(n_epochs=50, start=5000.0):
    epoch = np.arange(1, n_epochs + 1)
    loss = 600 + start * np.exp(-2.0 * epoch) + 50 * np.exp(-epoch / 10)
    best = epoch == n_epochs
    columns = {"epoch": epoch, "kl_weight": np.minimum(1, epoch / 20), "best": best}
    return pd.DataFrame(columns | {"train_loss": loss, "validation_loss": loss + 5})


@pytest.fixture
def curves():
    parts = [
        curve().assign(latent=name, seed=seed) for name in ("scvi", "scanvi") for seed in (0, 3)
    ]
    return pd.concat(parts, ignore_index=True)


def test_a_panel_for_each_latent_has_two_lines_and_a_kept_epoch_for_each_seed(curves):
    figure = plot_training(curves)
    panels = [axis for axis in figure.axes if axis.get_title(loc="left")]
    assert [axis.get_title(loc="left") for axis in panels] == ["scVI, 2 seeds", "scANVI, 2 seeds"]
    assert all(len(axis.lines) == 6 for axis in panels)
    plt.close(figure)


def test_huge_first_epochs_do_not_set_the_range(curves):
    lower, upper, cut = loss_range(curves)
    assert cut
    assert lower < 605 < upper < 700


def test_every_kept_epoch_lies_inside_the_range(curves):
    curves["best"] = curves["epoch"] == 7
    _, upper, _ = loss_range(curves)
    assert upper > curves.loc[curves["best"], "validation_loss"].max()


@pytest.mark.parametrize("n_epochs", [1, 2])
def test_a_run_of_few_epochs_can_be_drawn(n_epochs):
    plt.close(plot_training(curve(n_epochs).assign(latent="scvi", seed=0)))


def test_a_constant_loss_has_a_range():
    lower, upper, cut = loss_range(curve().assign(train_loss=7.0, validation_loss=7.0))
    assert lower < 7 < upper
    assert not cut


def test_curves_are_named_in_the_order_of_the_files(tmp_path):
    paths = [tmp_path / f"{number}.tsv" for number in range(4)]
    for number, path in enumerate(paths):
        files.write_table(path, curve(3).assign(train_loss=float(number)))
    found = read_curves(paths, ["scvi", "scanvi"], [0, 3])
    firsts = found.groupby(["latent", "seed"])["train_loss"].first()
    assert firsts["scvi", 3] == 1
    assert firsts["scanvi", 0] == 2
