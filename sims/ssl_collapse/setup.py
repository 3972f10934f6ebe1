"""What the experiments on collapse in self-supervised learning share."""

SOURCE = (
    "@inproceedings{ziyin2023what, title = {What shapes the loss landscape of self-supervised learning?}, author = "
    "{Ziyin, Liu and Lubana, Ekdeep Singh and Ueda, Masahito and Tanaka, Hidenori}, booktitle = {International "
    "Conference on Learning Representations}, year = {2023}}"
)
JING = (
    "@inproceedings{jing2022understanding, title = {Understanding dimensional collapse in contrastive self-supervised "
    "learning}, author = {Jing, Li and Vincent, Pascal and LeCun, Yann and Tian, Yuandong}, booktitle = {International "
    "Conference on Learning Representations}, year = {2022}}"
)
TIAN = (
    "@inproceedings{tian2021understanding, title = {Understanding self-supervised learning dynamics without "
    "contrastive pairs}, author = {Tian, Yuandong and Chen, Xinlei and Ganguli, Surya}, booktitle = {International "
    "Conference on Machine Learning}, year = {2021}}"
)
SIMON = (
    "@inproceedings{simon2023stepwise, title = {On the stepwise nature of self-supervised learning}, author = {Simon, "
    "James B. and Knutins, Maksis and Ziyin, Liu and Geisz, Daniel and Fetterman, Abraham J. and Albrecht, Joshua}, "
    "booktitle = {International Conference on Machine Learning}, year = {2023}}"
)
