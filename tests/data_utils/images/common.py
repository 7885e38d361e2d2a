"""What the tests of images share."""

import numpy as np

FILL = (125, 123, 114)


def seeded(seed=0):
    return np.random.default_rng(seed)


def write_image(path, rng, size=(20, 16), mode="RGB", **options):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (size[1], size[0], len(mode)), dtype=np.uint8)
    Image.fromarray(pixels.squeeze(), mode if mode == "CMYK" else None).save(path, **options)
    return pixels
