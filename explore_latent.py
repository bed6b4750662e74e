"""What a trained generator knows: samples, what each direction of z does, and walks between two samples.

Source    "Assignment 4, Practical Part: Generative Models (GANs)", Laferrière and Litalien, IFT6135, Université de Montréal, 2018,
          section 3. Works on a checkpoint of any training script here, which is all that it needs.
Run       python explore_latent.py runs/dcgan_celeba/checkpoint.pt sample --seeds 0-63
          python explore_latent.py runs/dcgan_celeba/checkpoint.pt play --seeds 140,180
          python explore_latent.py runs/dcgan_celeba/checkpoint.pt walk --seeds 140,180 --space all
Look at   the folder `explore` beside the checkpoint
Notation  z: noise (latent_dim,), drawn from N(0, 1) by its seed: seed 42 is the same z in every list and command.
          G(z): an image (C, H, W) in [-1, 1].
"""
import argparse
import importlib
import math
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

import common

# script -> its generators: the names that a checkpoint may ask for
GENERATORS = {"gan_mnist_mlp": ["Generator"], "dcgan_mnist": ["MLPGenerator", "DCGANGenerator"],
              "dcgan_celeba": ["VanillaGenerator", "DCGANGenerator"], "wgan_celeba": ["Generator"]}
FRAMES_PER_SECOND = 20


def parse_args(argv):
    parser = common.new_parser(__file__, __doc__)
    parser.add_argument("checkpoint", help="checkpoint.pt of a training script's run")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=argparse.ArgumentParser)
    sample = commands.add_parser("sample", help="a grid of samples, one for each seed")
    sample.add_argument("--each", action="store_true", help="write one PNG for each sample too, for tools such as torch-fidelity")
    play = commands.add_parser("play", help="set each dimension of z to +value and to -value, and rank them by what changes")
    play.add_argument("--value", type=float, default=3.0, help="3 is three standard deviations (the assignment)")
    walk = commands.add_parser("walk", help="from seed to seed, and back to the first")
    walk.add_argument("--space", default="latent", choices=["latent", "sphere", "screen", "all"],
                      help="latent: a line between the z's; sphere: an arc; screen: a cross-fade of the pixels; all: all three")
    walk.add_argument("--frames", type=int, default=50, help="of one leg of the walk, both ends counted (the assignment: 50)")
    for command, seeds in [(sample, "0-63"), (play, "140,180"), (walk, "140,180")]:
        command.error = parser.error
        command.add_argument("--seeds", default=seeds, help=f"such as 0-3,8; default {seeds}")
        command.add_argument("--out", metavar="DIR", help="default: a folder `explore` beside the checkpoint")
        command.add_argument("--device", help="cpu, cuda, ...; default: cuda when there is one, else cpu")
    args = parser.parse_args(argv)
    args.seeds, args.seed = parse_seeds(args.seeds), 0
    if args.command == "walk" and (len(args.seeds) < 2 or args.frames < 2):
        common.fail("a walk needs at least two seeds and two frames")
    if args.command == "play" and not 0 < args.value < math.inf:
        common.fail(f"--value {args.value} is out of range")
    return args


def parse_seeds(text):
    """'0-3,8' -> [0, 1, 2, 3, 8]"""
    seeds = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = range(int(first), int(last or first) + 1) if first.isdecimal() and (last.isdecimal() or not dash) else []
        if not 0 < len(numbers) <= 100_000 or numbers[-1] >= 2**32:
            common.fail(f"--seeds {text}: write whole numbers and ranges of them, such as 0-3,8")
        seeds += numbers
    return seeds


def load_generator(path, device):
    """The generator of a checkpoint, rebuilt from what the checkpoint says of it, in eval mode. Returns (G, latent_dim)."""
    saved = common.load_checkpoint(path)
    keywords = dict(saved["generator"])
    name = keywords.pop("class", None)
    if name not in GENERATORS.get(saved["script"], []):
        common.fail(f"{path} is of {saved['script']}.py's {name}, which is not a generator of these scripts")
    try:
        G = getattr(importlib.import_module(saved["script"]), name)(**keywords)
        G.load_state_dict(saved["G"])
    except (RuntimeError, TypeError, ValueError) as error:
        common.fail(f"{path} does not fit {saved['script']}.py: {str(error).splitlines()[0]}")
    return common.place(G, device, "fp32").eval(), keywords["latent_dim"]


def z_of(seed, latent_dim):
    """The z of a seed: (latent_dim,). From a random generator of its own, on the CPU: it depends on nothing else."""
    return torch.randn(latent_dim, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def images_of(G, z):
    """G of z (N, latent_dim), 64 at a time: (N, C, H, W) in [-1, 1], on the CPU."""
    device = next(G.parameters()).device
    return torch.cat([G(part.to(device)).cpu() for part in z.split(64)])


# ----------------------------------------------------------------------------------------------- the commands
def sample(G, latent_dim, args):
    """sample.png, a grid of the first 1,024; with --each also sample/<seed>.png of all of them."""
    shown = images_of(G, torch.stack([z_of(seed, latent_dim) for seed in args.seeds[:1024]]))
    common.save_grid(args.out / "sample.png", shown, columns=math.ceil(math.sqrt(len(shown))))
    if args.each:
        common.make_folder(args.out / "sample")
        for i, seed in enumerate(tqdm(args.seeds, "writing", disable=None, leave=False)):
            if i % 1024 == 0 and i > 0:  # as many at a time as the grid shows, so that the memory stays the same
                shown = images_of(G, torch.stack([z_of(seed, latent_dim) for seed in args.seeds[i:i + 1024]]))
            common.save_grid(args.out / f"sample/{seed:06d}.png", shown[i % 1024].unsqueeze(0), columns=1)


def play(G, latent_dim, args):
    """For each seed: play_<seed>.png, .csv and _top.png, the dimensions, their ranking, and the sweeps of the first ten."""
    for seed in args.seeds:
        z = z_of(seed, latent_dim)
        plus, minus = z.repeat(latent_dim, 1), z.repeat(latent_dim, 1)
        plus.fill_diagonal_(args.value)  # row i is z with its dimension i set
        minus.fill_diagonal_(-args.value)
        original, up, down = images_of(G, torch.cat([z.unsqueeze(0), plus, minus])).split([1, latent_dim, latent_dim])
        rows = torch.stack([original.expand_as(up), up, down], dim=1).flatten(0, 1)
        common.save_grid(args.out / f"play_{seed}.png", rows, columns=3)
        # how much a dimension changes the image: the mean difference of a pixel from the original, on the scale of [-1, 1]
        changes = torch.stack([(image - original).abs().mean(dim=(1, 2, 3)) for image in (up, down)], dim=1)
        ranking = changes.mean(dim=1).argsort(descending=True).tolist()
        with common.replacing(args.out / f"play_{seed}.csv") as file:
            file.write(b"dimension,change,change_plus,change_minus\n")
            for i in ranking:
                file.write(f"{i},{changes[i].mean():.6g},{changes[i, 0]:.6g},{changes[i, 1]:.6g}\n".encode())
        sweeps = z.repeat(len(ranking[:10]), 11, 1)
        for row, i in enumerate(ranking[:10]):
            sweeps[row, :, i] = torch.linspace(-args.value, args.value, 11)
        common.save_grid(args.out / f"play_{seed}_top.png", images_of(G, sweeps.flatten(0, 1)), columns=11)
        print(f"seed {seed}: the image depends most on dimensions {', '.join(map(str, ranking[:10]))}")


def slerp(a, b, t):
    """From a to b (latent_dim,) along an arc, t in [0, 1] as (N, 1). Returns (N, latent_dim).

    N(0, 1) in many dimensions lies near a sphere of radius sqrt(latent_dim): the middle of a straight line is too short by
    about sqrt(2), where G was hardly ever trained; an arc stays at the length that G knows.
    """
    angle = torch.acos(torch.nn.functional.cosine_similarity(a, b, dim=0).clamp(-1, 1))
    if angle.sin() < 1e-4:  # parallel: there is no arc, or no single one
        return torch.lerp(a, b, t)
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


def leg(G, space, a, b, frames):
    """One leg of a walk, from z a to z b: images (frames, C, H, W). Both ends are exact."""
    alpha = torch.arange(frames).div(frames - 1).unsqueeze(1)
    if space == "screen":  # a mixture of two pictures: a ghost, as the average of two pictures is not a picture
        start, end = images_of(G, torch.stack([a, b]))
        return torch.lerp(start, end, alpha.view(-1, 1, 1, 1))
    return images_of(G, slerp(a, b, alpha) if space == "sphere" else torch.lerp(a, b, alpha))


def walk(G, latent_dim, args):
    """walk_<seeds>_<space>: a PNG strip of 11 pictures a leg, and the whole way there and back as looping GIF and as MP4."""
    z = [z_of(seed, latent_dim) for seed in args.seeds]
    spaces = ["latent", "sphere", "screen"] if args.space == "all" else [args.space]
    stops = list(zip(z, z[1:] + z[:1])) if len(z) > 2 else [(z[0], z[1])]  # more than two seeds make a closed tour
    legs = [[leg(G, space, a, b, args.frames) for a, b in stops] for space in spaces]
    name = args.out / f"walk_{'-'.join(map(str, args.seeds[:5]))}_{args.space}"
    shown = torch.linspace(0, args.frames - 1, min(11, args.frames)).round().long()
    common.save_grid(f"{name}.png", torch.cat([images[shown] for row in legs for images in row]), columns=len(shown))
    if len(z) == 2:
        ways = [torch.cat([row[0], row[0][1:-1].flip(0)]) for row in legs]  # there and back
    else:
        ways = [torch.cat([images[:-1] for images in row]) for row in legs]  # a leg's last picture is the next one's first
    pictures = common.to_uint8(torch.cat(ways, dim=3))  # the spaces side by side
    scale = max(2, 192 // pictures.shape[2] // 2 * 2)  # even, as yuv420p wants even sizes
    frames = [Image.fromarray(picture.expand(3, -1, -1).permute(1, 2, 0).numpy()) for picture in pictures]
    frames = [frame.resize((frame.width * scale, frame.height * scale), Image.Resampling.NEAREST) for frame in frames]
    common.save_gif(f"{name}.gif", frames, seconds=len(frames) / FRAMES_PER_SECOND)
    save_mp4(f"{name}.mp4", frames)


def save_mp4(path, frames):
    """Save PIL images as H.264 with yuv420p colours, which every browser plays."""
    import av  # brings its own FFmpeg

    with common.replacing(path) as file, av.open(file, "w", format="mp4") as video:
        stream = video.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = *frames[0].size, "yuv420p"
        for frame in frames:
            video.mux(stream.encode(av.VideoFrame.from_image(frame)))
        video.mux(stream.encode())  # the frames that the encoder still holds


def main(argv=None):
    args = parse_args(argv)
    device = common.setup(args)
    G, latent_dim = load_generator(args.checkpoint, device)
    args.out = Path(args.out or Path(args.checkpoint).parent / "explore")
    common.make_folder(args.out)
    {"sample": sample, "play": play, "walk": walk}[args.command](G, latent_dim, args)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
