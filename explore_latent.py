"""What a trained generator knows: samples, what each direction of z does, walks between samples.

Source    "Assignment 4, Practical Part: Generative Models (GANs)", Laferrière and Litalien, IFT6135
          at Université de Montréal, 2018, section 3. Works on a checkpoint of any training script.
Run       python explore_latent.py runs/dcgan_celeba/checkpoint.pt sample --seeds 0-63
          python explore_latent.py runs/dcgan_celeba/checkpoint.pt play --seeds 140,180
          python explore_latent.py runs/dcgan_celeba/checkpoint.pt walk --seeds 140,180 --space all
          python explore_latent.py --script my_gan.py runs/my_gan/checkpoint.pt sample
Look at   the folder `explore` beside the checkpoint
Notation  z: noise (latent_dim,), drawn from N(0, 1) by its seed: seed 42 is the same z in every
          list and command. G(z): an image (C, H, W) in [-1, 1].
"""
import importlib
import math
import os
import sys
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

import common

# script -> its generators: the names that a checkpoint may ask for
GENERATORS = {
    "gan_mnist_mlp": ["Generator"],
    "dcgan_mnist": ["MLPGenerator", "DCGANGenerator"],
    "dcgan_celeba": ["VanillaGenerator", "DCGANGenerator"],
    "wgan_celeba": ["Generator"],
}
FRAMES_PER_SECOND = 20


def parse_args(argv):
    parser = common.new_parser(__file__, __doc__)
    parser.add_argument("checkpoint", type=os.path.expanduser, help="checkpoint.pt of a run")
    parser.add_argument("--script", type=os.path.expanduser, metavar="FILE",
                        help="before the command: your own copy of a training script, if that made "
                        "the checkpoint; it is run as code, so name only one you trust")
    commands = parser.add_subparsers(dest="command", required=True)
    sample = commands.add_parser("sample", help="a grid of samples, one for each seed")
    sample.add_argument("--each", action="store_true",
                        help="write each sample as a PNG too, for tools such as torch-fidelity")
    play = commands.add_parser("play", help="set each dimension of z to +value and to -value")
    play.add_argument("--value", type=float, default=3.0, help="default 3 deviations (assignment)")
    walk = commands.add_parser("walk", help="from seed to seed, and back to the first")
    walk.add_argument("--space", default="latent", choices=["latent", "sphere", "screen", "all"],
                      help="latent: a line between the z's; sphere: an arc; screen: a cross-fade")
    walk.add_argument("--frames", type=int, default=50,
                      help="of one leg, both ends counted; default 50 (assignment)")
    for command, seeds in [(sample, "0-63"), (play, "140,180"), (walk, "140,180")]:
        command.error = parser.error
        command.add_argument("--seeds", default=seeds, help=f"such as 0-3,8; default {seeds}")
        command.add_argument("--out", type=os.path.expanduser, metavar="DIR",
                             help="default: explore beside the checkpoint")
        command.add_argument("--device", help="cpu, cuda, ...; default: cuda when there is one")
    args = parser.parse_args(argv)
    args.seeds = parse_seeds(args.seeds)
    if args.command == "walk" and (len(args.seeds) < 2 or args.frames < 2):
        common.fail("a walk needs at least two seeds and two frames")
    if args.command == "play" and not 0 < args.value < 1e6:
        common.fail(f"--value {args.value} is out of range")
    return args


def parse_seeds(text):
    """'0-3,8' -> [0, 1, 2, 3, 8]"""
    seeds = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        whole = first.isdecimal() and (last.isdecimal() or not dash) and len(part) < 30
        numbers = range(int(first), int(last or first) + 1) if whole else []
        if not numbers or numbers[-1] >= 2**32 or len(numbers) > 100_000:
            common.fail(f"--seeds {text}: write whole numbers and ranges of them, such as 0-3,8")
        seeds += numbers
    return seeds


def load_generator(path, device, file=None):
    """The generator of a checkpoint, built again from what the checkpoint says of it, in eval mode.

    file: the training script, where it is not one of ours. Returns (G, latent_dim).
    """
    saved = common.load_checkpoint(path)
    print(f"{path}: {saved['script']}.py after epoch {saved['epoch']}", flush=True)
    keywords = dict(saved["generator"])
    name, script = keywords.pop("class", None), saved["script"]
    if file:
        if not Path(file).is_file() or Path(file).suffix != ".py" or "." in Path(file).stem:
            common.fail(f"--script {file}: no such Python file, or one with a dot in its name")
        sys.path.insert(0, str(Path(file).resolve().parent))
        script = Path(file).stem
    elif name not in GENERATORS.get(script, []):
        common.fail(f"{path} holds the {name} of {script}.py, which is not a generator of these "
                    f"scripts. To explore it: explore_latent.py --script {script}.py {path} ...")
    module = importlib.import_module(script)  # a mistake in your own script keeps its traceback
    try:
        G = getattr(module, str(name))(**keywords)
        G.load_state_dict(saved["G"])
        G.eval()(torch.zeros(1, keywords["latent_dim"]))
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        hint = "" if file else " (of your own? --script FILE)"
        common.fail(f"{path} does not fit {script}.py{hint}, or its generator wants more than z: "
                    f"{str(error)[:300]}")
    return common.prepare(G, device), keywords["latent_dim"]


def z_of(seed, latent_dim):
    """The z of a seed: (latent_dim,). From a random generator of its own, on the CPU."""
    return torch.randn(latent_dim, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def images_of(G, z):
    """G of z (N, latent_dim), 64 at a time: (N, C, H, W) in [-1, 1], on the CPU."""
    device = next(G.parameters()).device
    return torch.cat([G(part.to(device)).cpu() for part in z.split(64)])


# ------------------------------------------------------------------------------------- the commands
def sample(G, latent_dim, args):
    """sample.png, a grid of the first 1,024; with --each also sample/<seed>.png of all of them."""
    def images(seeds):
        return images_of(G, torch.stack([z_of(seed, latent_dim) for seed in seeds]))

    if args.each:
        (args.out / "sample").mkdir(exist_ok=True)
        names = {f"{seed:06d}.png" for seed in args.seeds}
        if others := [path for path in args.out.glob("sample/*.png") if path.name not in names]:
            common.fail(f"{args.out / 'sample'} holds {len(others)} files of other seeds, perhaps "
                        "of older weights: remove them, or choose another --out")
        for first in tqdm(range(0, len(args.seeds), 64), "writing", disable=None, leave=False):
            seeds = args.seeds[first:first + 64]
            for seed, image in zip(seeds, images(seeds)):
                to_picture(image).save(args.out / f"sample/{seed:06d}.png")
    shown = args.seeds[:1024]
    common.save_grid(args.out / "sample.png", images(shown), math.ceil(math.sqrt(len(shown))))


def play(G, latent_dim, args):
    """For each seed: play_<seed>.png (one row per dimension: the original, +value, -value), .csv
    (their ranking) and _top.png (the first ten, from -value to +value)."""
    for seed in args.seeds:
        z = z_of(seed, latent_dim)
        plus, minus = z.repeat(latent_dim, 1), z.repeat(latent_dim, 1)
        plus.fill_diagonal_(args.value)  # row i is z with its dimension i set
        minus.fill_diagonal_(-args.value)
        original, up, down = (images_of(G, part) for part in (z.unsqueeze(0), plus, minus))
        rows = torch.stack([original.expand_as(up), up, down], dim=1).flatten(0, 1)
        common.save_grid(args.out / f"play_{seed}.png", rows, columns=3)
        # how much a dimension changes the image: the mean over the pixels, on the scale of [-1, 1]
        changes = [(image - original).abs().mean(dim=(1, 2, 3)) for image in (up, down)]
        table = torch.stack([torch.arange(latent_dim), sum(changes) / 2, *changes], dim=1)
        ranking = table[:, 1].argsort(descending=True)
        with open(args.out / f"play_{seed}.csv", "w") as file:
            file.write("dimension,change,change_plus,change_minus\n")
            file.writelines(",".join(f"{value:.6g}" for value in row) + "\n"
                            for row in table[ranking].tolist())
        top = ranking[:10].tolist()
        sweeps = z.repeat(len(top), 11, 1)
        for row, i in enumerate(top):
            sweeps[row, :, i] = torch.linspace(-args.value, args.value, 11)
        pictures = images_of(G, sweeps.flatten(0, 1))
        common.save_grid(args.out / f"play_{seed}_top.png", pictures, columns=11)
        print(f"seed {seed}: the image depends most on dimensions {', '.join(map(str, top))}")


def slerp(a, b, t):
    """From a to b (latent_dim,) along an arc, t in [0, 1] as (N, 1). Returns (N, latent_dim).

    N(0, 1) in many dimensions lies near a sphere of radius sqrt(latent_dim). The middle of a
    straight line is too short, by a factor of about sqrt(2), and G was hardly ever trained there.
    """
    angle = torch.acos(torch.nn.functional.cosine_similarity(a, b, dim=0).clamp(-1, 1))
    if angle.sin() < 1e-4:  # parallel: there is no arc, or no single one
        return torch.lerp(a, b, t)
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


def leg(G, space, a, b, frames):
    """One leg of a walk, from z a to z b: images (frames, C, H, W). Both ends are exact."""
    alpha = torch.arange(frames).div(frames - 1).unsqueeze(1)
    if space == "screen":  # a ghost: the average of two pictures is not a picture
        start, end = images_of(G, torch.stack([a, b]))
        return torch.lerp(start, end, alpha.view(-1, 1, 1, 1))
    return images_of(G, slerp(a, b, alpha) if space == "sphere" else torch.lerp(a, b, alpha))


def walk(G, latent_dim, args):
    """walk_<seeds>_<space>: a PNG strip of 11 pictures a leg, and the whole way there and back as
    looping GIF and as MP4. With --space all, the three spaces below one another (PNG) or side by
    side."""
    z = [z_of(seed, latent_dim) for seed in args.seeds]
    spaces = ["latent", "sphere", "screen"] if args.space == "all" else [args.space]
    stops = list(zip(z, z[1:] + z[:1])) if len(z) > 2 else [(z[0], z[1])]  # three: a closed tour
    legs = [[leg(G, space, a, b, args.frames) for a, b in stops] for space in spaces]
    # of very many seeds the first ones: a file's name has 255 bytes at most
    name = args.out / f"walk_{'-'.join(map(str, args.seeds))[:100]}_{args.space}"
    shown = torch.linspace(0, args.frames - 1, min(11, args.frames)).round().long()
    strip = torch.cat([images[shown] for row in legs for images in row])
    common.save_grid(f"{name}.png", strip, columns=len(shown))
    if len(z) == 2:  # there and back, each end once
        ways = [torch.cat([row[0], row[0][1:-1].flip(0)]) for row in legs]
    else:  # a leg's last picture is the next one's first
        ways = [torch.cat([images[:-1] for images in row]) for row in legs]
    side_by_side = torch.cat(ways, dim=3)
    scale = max(2, 192 // side_by_side.shape[2] // 2 * 2)  # even, as yuv420p wants even sizes
    frames = [to_picture(image) for image in side_by_side]
    frames = [frame.resize((frame.width * scale, frame.height * scale), Image.Resampling.NEAREST)
              for frame in frames]
    frames[0].save(f"{name}.gif", save_all=True, append_images=frames[1:], loop=0,
                   duration=1000 / FRAMES_PER_SECOND)
    save_mp4(f"{name}.mp4", frames)


def to_picture(image):
    """An image (C, H, W) in [-1, 1] as a PIL image; a grey one in equal red, green and blue."""
    pixels = ((image + 1) * 127.5).round().clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).expand(-1, -1, 3).contiguous().numpy())


def save_mp4(path, frames):
    """Save PIL images as H.264 with yuv420p colours, which every browser plays."""
    import av  # brings its own FFmpeg

    with av.open(path, "w") as video:
        stream = video.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = *frames[0].size, "yuv420p"
        for frame in frames:
            video.mux(stream.encode(av.VideoFrame.from_image(frame)))
        video.mux(stream.encode())  # the frames that the encoder still holds


def main(argv=None):
    args = parse_args(argv)
    device = common.pick_device(args.device, training=False)
    G, latent_dim = load_generator(args.checkpoint, device, args.script)
    args.out = Path(args.out or Path(args.checkpoint).parent / "explore")
    args.out.mkdir(parents=True, exist_ok=True)
    {"sample": sample, "play": play, "walk": walk}[args.command](G, latent_dim, args)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    common.launch(main)
