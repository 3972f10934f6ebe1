"""What the experiments of stochastic collapse share."""

SOURCE = (
    "@inproceedings{chen2023stochastic, title = {Stochastic collapse: how gradient noise attracts {SGD} dynamics "
    "towards simpler subnetworks}, author = {Chen, Feng and Kunin, Daniel and Yamamura, Atsushi and Ganguli, Surya}, "
    "booktitle = {Advances in Neural Information Processing Systems}, year = {2023}}"
)
