"""Self-supervised learning with real minibatches and augmentations: the experiments beside `theory.ssl_collapse`."""

from sims.ssl_collapse.barlow_steps import barlow_steps
from sims.ssl_collapse.batch_bias import batch_bias
from sims.ssl_collapse.bias import bias
from sims.ssl_collapse.byol import byol
from sims.ssl_collapse.byol_ghost import byol_ghost
from sims.ssl_collapse.byol_survival import byol_basin, byol_survival
from sims.ssl_collapse.byol_trajectory import trajectory as byol_trajectory
from sims.ssl_collapse.crops import crops
from sims.ssl_collapse.digits import digits
from sims.ssl_collapse.direct_predictor import experiment as direct_predictor
from sims.ssl_collapse.dot_bias import dot_bias
from sims.ssl_collapse.dot_toy import dot_toy
from sims.ssl_collapse.dynamics import dynamics
from sims.ssl_collapse.hysteresis import hysteresis
from sims.ssl_collapse.imbalance import imbalance
from sims.ssl_collapse.minibatch_dynamics import minibatch_dynamics
from sims.ssl_collapse.minima import minima
from sims.ssl_collapse.negatives import negatives, negatives_dot
from sims.ssl_collapse.normalization import normalization
from sims.ssl_collapse.one_hot import one_hot
from sims.ssl_collapse.origin import origin
from sims.ssl_collapse.pairs import pairs
from sims.ssl_collapse.phase_diagram import phase_diagram
from sims.ssl_collapse.plateau import plateau
from sims.ssl_collapse.probe import probe
from sims.ssl_collapse.relu_encoder import relu_encoder
from sims.ssl_collapse.riccati import riccati
from sims.ssl_collapse.saddles import saddles
from sims.ssl_collapse.sections import sections
from sims.ssl_collapse.spectra import spectra
from sims.ssl_collapse.strength import strength
from sims.ssl_collapse.two_layer import two_layer
from sims.ssl_collapse.two_layer_minibatch import two_layer_minibatch
from sims.ssl_collapse.vicreg import vicreg

EXPERIMENTS = (
    phase_diagram,
    strength,
    pairs,
    negatives,
    negatives_dot,
    digits,
    two_layer,
    hysteresis,
    two_layer_minibatch,
    origin,
    minima,
    saddles,
    sections,
    byol,
    byol_survival,
    byol_basin,
    byol_trajectory,
    byol_ghost,
    direct_predictor,
    spectra,
    bias,
    dot_bias,
    vicreg,
    barlow_steps,
    batch_bias,
    dot_toy,
    dynamics,
    riccati,
    plateau,
    minibatch_dynamics,
    probe,
    imbalance,
    normalization,
    one_hot,
    relu_encoder,
    crops,
)

__all__ = ["EXPERIMENTS"]
