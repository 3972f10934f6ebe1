"""Self-supervised learning: which modes of an encoder live, how strong they are, and what removes them."""

from figures.convergence import convergence
from figures.ssl_collapse.barlow import barlow_steps
from figures.ssl_collapse.bias import dot_bias, dot_toy, spectral_bias
from figures.ssl_collapse.byol import byol
from figures.ssl_collapse.byol_ghost import ghost
from figures.ssl_collapse.byol_survival import basin, survival
from figures.ssl_collapse.byol_trajectory import trajectory
from figures.ssl_collapse.digits import crops, digits, relu_encoder
from figures.ssl_collapse.direct_predictor import direct
from figures.ssl_collapse.dynamics import dynamics, minibatch_dynamics, plateau, riccati
from figures.ssl_collapse.hysteresis import hysteresis
from figures.ssl_collapse.imbalance import imbalance
from figures.ssl_collapse.losses import batch_bias, spectra
from figures.ssl_collapse.minima import minima
from figures.ssl_collapse.negatives import negatives, negatives_dot
from figures.ssl_collapse.normalization import normalization
from figures.ssl_collapse.origin import origin
from figures.ssl_collapse.pairs import pairs
from figures.ssl_collapse.phase_diagram import phase_diagram
from figures.ssl_collapse.probe import probe
from figures.ssl_collapse.saddles import saddles
from figures.ssl_collapse.sections import sections
from figures.ssl_collapse.strength import strength
from figures.ssl_collapse.two_layer import two_layer
from figures.ssl_collapse.two_layer_minibatch import two_layer_minibatch
from figures.ssl_collapse.vicreg import vicreg

FIGURES = {
    "phase_diagram": {"figure": phase_diagram, "convergence": convergence},
    "strength": {"figure": strength, "convergence": convergence},
    "pairs": {"figure": pairs, "convergence": convergence},
    "negatives": {"figure": negatives, "convergence": convergence},
    "negatives_dot": {"figure": negatives_dot},
    "two_layer": {"figure": two_layer, "convergence": convergence},
    "hysteresis": {"figure": hysteresis},
    "two_layer_minibatch": {"figure": two_layer_minibatch, "convergence": convergence},
    "sections": {"figure": sections, "convergence": convergence},
    "origin": {"figure": origin},
    "minima": {"figure": minima},
    "saddles": {"figure": saddles, "convergence": convergence},
    "byol": {"figure": byol},
    "byol_survival": {"figure": survival},
    "byol_basin": {"figure": basin},
    "byol_trajectory": {"figure": trajectory, "convergence": convergence},
    "byol_ghost": {"figure": ghost, "convergence": convergence},
    "direct_predictor": {"figure": direct, "convergence": convergence},
    "spectra": {"figure": spectra, "convergence": convergence},
    "batch_bias": {"figure": batch_bias},
    "bias": {"figure": spectral_bias, "convergence": convergence},
    "dot_bias": {"figure": dot_bias},
    "dot_toy": {"figure": dot_toy},
    "barlow_steps": {"figure": barlow_steps, "convergence": convergence},
    "vicreg": {"figure": vicreg, "convergence": convergence},
    "dynamics": {"figure": dynamics, "convergence": convergence},
    "riccati": {"figure": riccati, "convergence": convergence},
    "plateau": {"figure": plateau, "convergence": convergence},
    "minibatch_dynamics": {"figure": minibatch_dynamics, "convergence": convergence},
    "probe": {"figure": probe},
    "digits": {"figure": digits, "convergence": convergence},
    "relu_encoder": {"figure": relu_encoder},
    "crops": {"figure": crops},
    "imbalance": {"figure": imbalance, "convergence": convergence},
    "normalization": {"figure": normalization, "convergence": convergence},
    "one_hot": {"figure": convergence},
}
