"""Pictures as matrices: B is the picture, A the identity, so C is what a method keeps of it.

Grey values from 0 to 1: the Shepp-Logan phantom, 1000 x 1000, whose rank is low; three photographs
that come with scikit-image and scikit-learn. Scores: peak signal-to-noise ratio in dB and
structural similarity, both from scikit-image.
Source: the experiment of Saha, Srivastava, Pilanci, arXiv 2310.11028 (phantom and others).
"""

from functools import cache

import numpy as np

from lrqmm.bench.sources import Float32, Workload

SHAPES = {"phantom": (1000, 1000), "camera": (512, 512), "china": (427, 640), "flower": (427, 640)}


@cache
def picture(case: str) -> Float32:
    """Grey values, 0 to 1."""
    from skimage import color, data, transform
    from sklearn.datasets import load_sample_image

    if case == "phantom":
        grey = transform.resize(data.shepp_logan_phantom(), SHAPES[case], order=1)
    elif case == "camera":
        grey = data.camera() / 255
    else:
        grey = color.rgb2gray(load_sample_image(f"{case}.jpg"))
    values = np.asarray(grey, np.float32)
    assert values.shape == SHAPES[case]
    return values


def make(case: str, seed: int) -> tuple[Float32, Float32]:
    """The identity and the picture; seeds do not change it."""
    B = picture(case)
    return np.eye(len(B), dtype=np.float32), B


def score(case: str, seed: int, C: Float32) -> dict[str, float]:
    """`psnr` in dB, which the picture itself lacks, and `ssim`, 1 of the picture itself; the range
    is 0 to 1."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    B, C = picture(case).astype(np.float64), C.astype(np.float64)
    scores = {"ssim": float(structural_similarity(B, C, data_range=1))}
    if (B != C).any():
        scores["psnr"] = float(peak_signal_noise_ratio(B, C, data_range=1))
    return scores


SOURCE = Workload(
    name="images",
    title="image compression",
    cases={case: (rows, rows, columns) for case, (rows, columns) in SHAPES.items()},
    matrices=make,
    scores=score,
    metrics=("psnr", "ssim"),
)
