"""A second player who tries to tell the batch from the latent state.

It learns to recognise the batch of each cell; the encoder learns to make it believe in the other
batches (Ganin et al. 2016; the same losses as in scvi-tools). With a single batch there is no game.
The weight of the encoder's part grows to its value over the first steps and stays there. That of
scvi-tools falls to 0 by default while the KL weight rises, for both players, so that the game is
over when the warm-up is.

Letters for shapes: B cells, L latent dimensions, S batches.
"""

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from sclatent.models.networks import Layers


class Discriminator(nn.Module):
    """p(s | z): two hidden layers of 32 units."""

    def __init__(self, n_latent: int, n_batches: int):
        super().__init__()
        self.layers = Layers(n_latent, 32, 2, 0, dropout=0.1)
        self.logits = nn.Linear(32, n_batches)

    def forward(self, z: Tensor) -> Tensor:
        """Return the logit of each batch, (B, S)."""
        return self.logits(self.layers(z))

    def recognise(self, z: Tensor, batch: Tensor) -> Tensor:
        """Return the cross-entropy with the true batch (B, S); it trains only this network."""
        return cross_entropy(self(z.detach()), batch)

    def fool(self, z: Tensor, batch: Tensor) -> Tensor:
        """Return the cross-entropy with all other batches alike; it trains only the encoder."""
        others = (1 - batch) / (batch.shape[1] - 1)
        frozen = {name: value.detach() for name, value in self.named_parameters()}
        return cross_entropy(functional_call(self, frozen, (z,)), others)
