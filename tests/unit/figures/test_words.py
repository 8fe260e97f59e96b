from sclatent.figures import words


def test_a_variant_is_called_after_its_model():
    assert words.name("scvi_linear") == "scVI linear"
    assert words.name("scanvi_from_scratch") == "scANVI from scratch"
    assert words.name("scvi") == "scVI"
    assert words.name("my_own") == "my_own"


def test_variants_stand_after_their_model_and_strangers_last():
    keys = ["zebra", "scanvi", "scvi_linear", "pca", "scvi", "dca_zinb", "scvi_adversary"]
    expected = ["pca", "dca_zinb", "scvi", "scvi_adversary", "scvi_linear", "scanvi", "zebra"]
    assert words.ordered(keys, words.NAMES) == expected
