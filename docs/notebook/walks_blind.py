"""Faces on the way, judged blind: pictures of four kinds in one shuffled heap, for the eye.

The kinds: between the ends of a latent walk, between the ends of a screen walk, the ends, and
independent samples. Eight pairs of seeds (0 and 1 to 14 and 15), six pictures a walk. The script
draws numbered sheets; you write one letter a picture into a file, y for plausible and n for not,
28 a line and sheet; then it counts by kind. The rule: one head, both eyes, nose and mouth
where they belong, no second outline, no part missing or smeared over.

Run from the project's root:
    python docs/notebook/walks_blind.py pretrained/faces.pt --out sheets
    python docs/notebook/walks_blind.py pretrained/faces.pt --answers answers.txt
"""
import argparse
import sys
from pathlib import Path

import torch
from PIL import ImageDraw

for folder in Path(__file__).resolve().parents[:3]:  # the project's root is one of them
    sys.path.insert(0, str(folder))
from walks import all_walks

from explore_latent import images_of, load_generator, to_picture, z_of

PAIRS = 8
FRAMES = 6
COLUMNS, ROWS, SCALE = 7, 4, 4


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("--out")
    parser.add_argument("--answers")
    args = parser.parse_args()

    G, latent_dim = load_generator(args.checkpoint, torch.device("cpu"))
    latent = all_walks(G, latent_dim, "latent", PAIRS, FRAMES)
    screen = all_walks(G, latent_dim, "screen", PAIRS, FRAMES)
    samples = images_of(G, torch.stack([z_of(seed, latent_dim) for seed in range(100, 132)]))
    heap = {"between, latent": latent[:, 1:-1].flatten(0, 1),
            "between, screen": screen[:, 1:-1].flatten(0, 1),
            "ends": latent[:, [0, -1]].flatten(0, 1),
            "independent samples": samples}
    kinds = [kind for kind, images in heap.items() for _ in images]
    images = torch.cat(list(heap.values()))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(2026)).tolist()

    if args.answers:
        answers = "".join(Path(args.answers).read_text().split())
        assert len(answers) == len(order), (len(answers), len(order))
        for kind, its_images in heap.items():
            own = [letter for letter, i in zip(answers, order) if kinds[i] == kind]
            print(f"| {kind} | {own.count('y')} of {len(its_images)} |")
        for name, first in [("latent", 0), ("screen", 32)]:
            verdicts = dict(zip(order, answers))
            for pair in range(PAIRS):
                start = first + pair * (FRAMES - 2)
                print(name, pair, "".join(verdicts[i] for i in range(start, start + FRAMES - 2)))
        return

    from PIL import Image
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    side = 64 * SCALE + 4
    for sheet in range(len(order) // (COLUMNS * ROWS)):
        page = Image.new("RGB", (COLUMNS * side, ROWS * side), "white")
        for place in range(COLUMNS * ROWS):
            number = sheet * COLUMNS * ROWS + place
            picture = to_picture(images[order[number]]).resize((64 * SCALE,) * 2, Image.LANCZOS)
            ImageDraw.Draw(picture).text((3, 3), str(number % (COLUMNS * ROWS) + 1), fill="red")
            page.paste(picture, (place % COLUMNS * side, place // COLUMNS * side))
        page.save(out / f"sheet_{sheet + 1}.png")


if __name__ == "__main__":
    main()
