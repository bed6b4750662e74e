"""Draw docs/pictures/upsampling.png: four ways to make a row of numbers twice as long.

    python docs/notebook/draw_upsampling.py

The assignment's figures 1 to 3, after Odena et al. 2016. A ramp 1, 2, ..., 8 is enlarged by kernels
of equal weights. Nothing is trained here.
"""
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch.nn import functional as F

PICTURE = Path(__file__).resolve().parents[1] / "pictures/upsampling.png"


def enlarged():
    """title -> the 16 numbers that a way makes of the ramp."""
    ramp = torch.arange(1.0, 9).view(1, 1, 8)
    four = torch.ones(1, 1, 4)
    three = torch.ones(1, 1, 3)
    nearest = F.interpolate(ramp, scale_factor=2, mode="nearest")
    linear = F.interpolate(ramp, scale_factor=2, mode="linear")
    outputs = {
        "deconvolution, kernel 4: even": F.conv_transpose1d(ramp, four / 2, stride=2, padding=1),
        "deconvolution, kernel 3: checkered": F.conv_transpose1d(
            ramp, three / 1.5, stride=2, padding=1, output_padding=1),
        "nearest, then convolution: even": F.conv1d(nearest, three / 3, padding=1),
        "bilinear, then convolution: even": F.conv1d(linear, three / 3, padding=1),
    }
    return {title: output.flatten().tolist() for title, output in outputs.items()}


def main():
    figure = Figure(figsize=(10, 6), layout="constrained")
    for panel, (title, output) in zip(figure.subplots(2, 2, sharey=True).flat, enlarged().items()):
        panel.bar(range(16), output, width=1, edgecolor="white")
        panel.set_title(title, fontsize=16)
        panel.tick_params(labelsize=14)
        panel.set_xticks([])
    figure.savefig(PICTURE, dpi=90)
    # 32 colours are enough: the file is 9 kB in place of 26
    Image.open(PICTURE).convert("RGB").quantize(32).save(PICTURE, optimize=True)
    print(PICTURE)


if __name__ == "__main__":
    main()
