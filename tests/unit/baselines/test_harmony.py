import numpy as np

from sclatent.baselines.harmony import Harmony, correct_harmony


def planted(shift: float):
    random = np.random.default_rng(0)
    batch = np.repeat(["a", "b"], 150)
    kind = random.integers(0, 2, 300)
    latent = random.normal(0, 1, (300, 5))
    latent[:, 0] += 8 * kind
    latent[:, 1] += shift * (batch == "b")
    return latent.astype(np.float32), batch, kind


def test_it_moves_batches_together_and_keeps_types_apart():
    latent, batch, kind = planted(shift=6)
    corrected = correct_harmony(latent, batch, Harmony(), seed=0)
    gap = abs(corrected[batch == "a"].mean(0) - corrected[batch == "b"].mean(0)).max()
    types = abs(corrected[kind == 0].mean(0) - corrected[kind == 1].mean(0)).max()
    assert gap < 2
    assert types > 5


def test_one_batch_comes_back_as_it_was(capsys):
    latent, _, _ = planted(shift=0)
    assert np.array_equal(correct_harmony(latent, ["a"] * 300, Harmony(), seed=0), latent)
    assert "nothing to correct" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_bits():
    latent, batch, _ = planted(shift=3)
    runs = [correct_harmony(latent, batch, Harmony(), seed=1) for _ in range(2)]
    assert np.array_equal(*runs)
