"""What the experiments on the limiting dynamics of SGD share."""

SOURCE = (
    "@article{kunin2024limiting, title = {The limiting dynamics of {SGD}: modified loss, phase-space oscillations, "
    "and anomalous diffusion}, author = {Kunin, Daniel and Sagastuy-Brena, Javier and Gillespie, Lauren and Margalit, "
    "Eshed and Tanaka, Hidenori and Ganguli, Surya and Yamins, Daniel L. K.}, journal = {Neural Computation}, "
    "volume = {36}, year = {2024}}"
)
