"""Zeros and faces drawn by code, for --dataset toy: no download, and every factor is known."""
import torch


def zeros():
    """Zeros near MNIST's in looks and number: uint8 (5923, 1, 28, 28), always the same ones.

    Each is an ellipse of random size, slant and position under a pen of random thickness.
    """
    generator = torch.Generator().manual_seed(0)

    def uniform(low, high):
        return low + (high - low) * torch.rand(5923, 1, 1, 1, generator=generator)

    y, x = torch.meshgrid(torch.arange(28) - 13.5, torch.arange(28) - 13.5, indexing="ij")
    x, y = x + uniform(-1, 1), y + uniform(-1, 1)
    x = x + uniform(-0.1, 0.6) * y  # slant: most hands lean to the right
    height = uniform(6.5, 8.5)  # half axes in pixels; MNIST fits its digits into 20 x 20
    width = height * uniform(0.45, 1)
    radius = ((x / width) ** 2 + (y / height) ** 2).sqrt()
    distance = (radius - 1).abs() * (width * height).sqrt()  # to the path of the pen
    ink = torch.sigmoid((uniform(1, 2.4) - distance) / uniform(0.25, 0.6))
    return (255 * ink).round().to(torch.uint8)


FACTORS = ["skin", "length", "width", "jaw", "eyes", "turn", "shade", "red", "green", "blue"]
HAIR = torch.tensor([[25.0, 20, 20], [95, 55, 30], [225, 190, 110], [170, 60, 25]])  # by label // 2
DARK_SKIN, LIGHT_SKIN, LIPS = torch.tensor([[110.0, 70, 45], [250, 215, 190], [150, 40, 50]])


def faces(count=None):
    """Faces: images uint8 (count, 3, 64, 64), labels int64 (count,), factors: name -> (count,).

    A label is 2 * hair colour (black, brown, blond, red) + mouth open: eight kinds, equally many
    among the 10,000 that there are. They are always the same; a count gives the first ones.
    """
    generator = torch.Generator().manual_seed(0)
    factors = torch.rand(len(FACTORS), 10_000, generator=generator)[:, :count]  # uniform in [0, 1]
    labels = torch.randperm(10_000, generator=generator)[:count] % 8
    parts = torch.arange(len(labels)).split(50)  # 50 faces fit into a processor's cache: 8 x faster
    images = [draw(factors[:, part].view(-1, len(part), 1, 1, 1), labels[part]) for part in parts]
    return torch.cat(images), labels, dict(zip(FACTORS, factors))


def draw(factors, labels):
    """Draw a few faces, from the background to the teeth: uint8 (N, 3, 64, 64)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    skin, length, width, jaw, eyes, turn, shade, *back = factors
    open_mouth = (labels % 2).view(-1, 1, 1, 1)
    hair = HAIR[labels // 2].view(-1, 3, 1, 1) * (0.8 + 0.4 * shade)
    skin = torch.lerp(DARK_SKIN.view(3, 1, 1), LIGHT_SKIN.view(3, 1, 1), skin)
    turn, width = 0.3 * turn - 0.15, 0.38 + 0.12 * width
    image = 60 + 170 * torch.cat(back, dim=1) * (1 - 0.3 * y)

    def paint(colour, cx, cy, rx, ry, where=1.0):
        """Lay an ellipse over the image, with an edge one pixel soft."""
        rx, ry, colour = (torch.as_tensor(value, dtype=torch.float32) for value in (rx, ry, colour))
        radius = (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2).sqrt()
        inside = ((1 - radius) * torch.minimum(rx, ry) * 32 + 0.5).clamp(0, 1) * where
        image.lerp_(colour.expand_as(image), inside)

    paint(hair, 0, 0.1 + 0.25 * length, width + 0.16, 0.55 + 0.45 * length)
    paint(255 - hair, 0, 1.25, 0.85, 0.45)  # clothes
    paint(0.85 * skin, 0, 0.7, 0.17, 0.3)  # neck
    paint(hair, 0, -0.15, width + 0.12, 0.62)
    paint(skin, 0.3 * turn, 0.05, width, 0.58)
    paint(skin, 0.5 * turn, 0.3, width * (0.65 + 0.25 * jaw), 0.42)
    paint(hair, -turn, -0.5, width + 0.05, 0.24)  # fringe
    for side in (-1, 1):
        paint(245.0, turn + 0.19 * side, -0.02, 0.10, 0.045 + 0.03 * eyes)
        paint(40.0, 1.2 * turn + 0.19 * side, -0.02, 0.045, 0.045)
        paint(0.6 * hair, turn + 0.19 * side, -0.15, 0.11, 0.025)
    paint(0.8 * skin, 1.4 * turn, 0.17, 0.05, 0.09)  # nose
    paint(LIPS.view(3, 1, 1), turn, 0.42, 0.17, 0.035 + 0.075 * open_mouth)
    paint(250.0, turn, 0.385, 0.12, 0.03, where=open_mouth)  # teeth
    return image.round().clamp(0, 255).to(torch.uint8)
