"""Names and shapes of a network's products, known without loading it."""

from __future__ import annotations


def resnet50_products(pictures: int) -> dict[str, tuple[int, int, int]]:
    """(m, k, n) of the 54 products of ResNet-50 v1 on 224 x 224 pictures, in running order."""
    products = {"conv1": (pictures * 112 * 112, 3 * 7 * 7, 64)}
    channels, width, side = 64, 64, 56
    for stage, blocks in ((2, "abc"), (3, "abcd"), (4, "abcdef"), (5, "abc")):
        rows = pictures * side * side
        for block in blocks:
            name = f"res{stage}{block}_branch"
            products[f"{name}2a"] = (rows, channels, width)
            products[f"{name}2b"] = (rows, 9 * width, width)
            products[f"{name}2c"] = (rows, width, 4 * width)
            if block == "a":
                products[f"{name}1"] = (rows, channels, 4 * width)
            channels = 4 * width
        width, side = 2 * width, side // 2
    products["fc1000"] = (pictures, channels, 1000)
    return products
