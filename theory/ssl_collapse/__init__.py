r"""Self-supervised learning of a linear encoder: its loss landscape, and what collapses in it.

A clean input has mean 0 and covariance A0; a view adds independent noise, the augmentation, of covariance C; Sigma =
A0 + C. A positive pair is two views of one input, a negative is a view of another. The encoder f(x) = W x, W of shape
(m, d), has the Gram matrix M = W^T W and the embedding covariance S = W Sigma W^T, whose eigenvalues are the strengths
of its modes. Complete collapse is S = 0, dimensional collapse 0 < rank S < min(m, d). Temperature tau, weight alpha of
the alignment term, weight decay lambda |W|_F^2 (without 1/2), gradient flow dW/dt = -grad L. In the setting of Liu
Ziyin, E. S. Lubana, M. Ueda and H. Tanaka, "What shapes the loss landscape of self-supervised learning?" (ICLR 2023),
arXiv:2210.00638; the formulas are derived here.
"""

from theory.ssl_collapse.landscape import effective_landscape

__all__ = [
    "effective_landscape",
]
