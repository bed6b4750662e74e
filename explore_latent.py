"""What a trained generator knows: samples, what each number in z does, walks between two samples.

Source    "Assignment 4, Practical Part: Generative Models (GANs)", Laferrière and Litalien, IFT6135
          at Université de Montréal, 2018, section 3. Works on a checkpoint of any training script.
Run       python explore_latent.py pretrained/faces.pt walk --seeds 140,180
          python explore_latent.py runs/dcgan_celeba/checkpoint.pt sample --seeds 0-63
          python explore_latent.py runs/dcgan_celeba/checkpoint.pt play --seeds 140,180
          python explore_latent.py runs/dcgan_celeba/checkpoint.pt walk --seeds 140,180 --space all
          python explore_latent.py runs/dcgan_celeba/checkpoint.pt export --out my_faces.pt
          python explore_latent.py --script my_gan.py runs/my_gan/checkpoint.pt sample
Look at   the folder that is printed at the end: `explore` beside the checkpoint of a run
Notation  z: noise (latent_dim,), drawn from N(0, 1) by its seed: seed 42 is the same z in every
          list and command. G(z): an image (C, H, W) in [-1, 1].
"""
import argparse
import importlib
import itertools
import math
import sys
import zlib
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
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
    parser.add_argument("checkpoint", type=common.folder,
                        help="checkpoint.pt of a run, or an exported generator")
    add_script_flag(parser, "must come before the command: ")
    commands = parser.add_subparsers(dest="command", required=True)
    sample = commands.add_parser("sample", allow_abbrev=False,
                                 help="draw a grid of samples, one for each seed")
    sample.add_argument("--each", action="store_true",
                        help="write each sample as a PNG too, for tools such as torch-fidelity")
    play = commands.add_parser("play", allow_abbrev=False,
                               help="set each number in z to +value and to -value, in turn")
    play.add_argument("--value", type=common.positive(float), default=3.0,
                      metavar="X",
                      help="the value that a number is set to (default: %(default)s, as in the "
                           "assignment)")
    walk = commands.add_parser("walk", allow_abbrev=False,
                               help="walk from seed to seed (the film also goes back to the first)")
    walk.add_argument("--space", default="latent", choices=["latent", "sphere", "screen", "all"],
                      help="latent: on a straight line between the two z; sphere: on an arc "
                           "(slerp); screen: fade one picture into the other (default: "
                           "%(default)s)")
    walk.add_argument("--frames", type=common.positive(int), default=50, metavar="N",
                      help="pictures from one seed to the next, both ends included (default: "
                           "%(default)s, as in the assignment)")
    export = commands.add_parser("export", allow_abbrev=False,
                                 help="write the generator alone, in half precision: a small file "
                                      "to share")
    export.add_argument("--out", type=common.folder, metavar="FILE", required=True,
                        help="the file to write")
    for command, seeds in [(sample, "0-63"), (play, "140,180"), (walk, "140,180")]:
        command.add_argument("--seeds", type=parse_seeds, default=seeds, metavar="LIST",
                             help="seeds, as whole numbers and ranges such as 0-3,8: each stands "
                                  "for one z (default: %(default)s)")
        command.add_argument("--out", type=common.folder, metavar="DIR",
                             help="folder to write into (default: explore, beside a run's "
                                  "checkpoint.pt; for any other file runs/explore_latent-NAME)")
        command.add_argument("--device",
                             help="cpu, cuda, ... (default: cuda where there is one, else cpu)")
    for command in (sample, play, walk, export):
        command.error = parser.error  # one line on stderr
    args = parser.parse_args(argv)
    if args.command == "walk" and (len(args.seeds) < 2 or args.frames < 2):
        common.fail("a walk needs at least two seeds and two frames")
    return args


def add_script_flag(parser, when=""):
    parser.add_argument("--script", type=common.folder, metavar="FILE",
                        help=f"{when}the training script that made the checkpoint, if it is not "
                             "one of ours. It is run as code, so name only one that you trust")


def parse_seeds(text):
    """'0-3,8' -> [0, 1, 2, 3, 8]"""
    seeds = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and len(part) < 30):
            raise argparse.ArgumentTypeError(f"{text}: write whole numbers and ranges of them, "
                                             "such as 0-3,8")
        first, last = int(first), int(last)
        if first > last or last >= 2**32 or last - first >= 1_000_000:
            raise argparse.ArgumentTypeError(f"{text}: {part.strip()} is no range, or too large")
        seeds += range(first, last + 1)
    return seeds


# ----------------------------------------------------------------------------------- the generator
def load_generator(path, device, script=None):
    """The generator of a checkpoint, built again from what the checkpoint says of it, in eval mode.

    script: the file of the training script, where it is not one of ours. Returns (G, latent_dim).
    """
    saved = common.load_checkpoint(path)
    print(f"{path}: {saved['script']}.py after epoch {saved['epoch']}", flush=True)
    if script and Path(script).stem != saved["script"]:
        print(f"{script} is not used for it: that is another script", flush=True)
    try:
        keywords = dict(saved["generator"])
        name = str(keywords.pop("class"))
    except (TypeError, ValueError, KeyError):
        common.fail(f"{path} does not say which generator it holds")
    if script:
        check_script(script)
    if script and Path(script).stem == saved["script"]:
        module = import_script(script)
    elif name in GENERATORS.get(saved["script"], []):
        module = importlib.import_module(saved["script"])
    else:
        common.fail(f"{path} holds the {name} of {saved['script']}.py, which is not one of the "
                    f"scripts here. If it is your own copy, name it: --script {saved['script']}.py")
    try:
        G = getattr(module, name)(**keywords)
        G.load_state_dict(saved["G"])  # half precision becomes float32 again
        G.eval()
        with torch.no_grad():
            G(torch.zeros(1, keywords["latent_dim"]))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # other keywords, other weights, hostile ones: many types
        hint = "" if script else " (if it is of your own copy, name that with --script)"
        common.fail(f"{path} does not fit {module.__name__}.py{hint}, or its generator wants more "
                    f"than z: {str(error)[:300]}")
    return common.prepare(G, device), keywords["latent_dim"]


def check_script(file):
    path = Path(file)
    if not path.is_file() or path.suffix != ".py" or "." in path.stem:
        common.fail(f"--script {file}: no such Python file, or one with a dot in its name")


def import_script(file):
    """Import a training script by its path. A mistake in it keeps its traceback."""
    path = Path(file)
    sys.path.insert(0, str(path.resolve().parent))
    return importlib.import_module(path.stem)


def output_folder(checkpoint, tool, name):
    """Where a tool writes: the folder `name` beside the checkpoint.pt of a run. For another file,
    such as those in pretrained/, it is runs/TOOL-FILE."""
    path = Path(checkpoint)
    if path.name == "checkpoint.pt":
        return path.parent / name
    return Path("runs", f"{tool}-{path.stem}")


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
    if args.each:
        write_each_sample(G, latent_dim, args.seeds, args.out / "sample")
    z = torch.stack([z_of(seed, latent_dim) for seed in args.seeds[:1024]])
    columns = math.ceil(math.sqrt(len(z)))
    common.save_grid(args.out / "sample.png", images_of(G, z), columns)


def write_each_sample(G, latent_dim, seeds, folder):
    """One PNG a seed. The folder must hold no others: a tool that reads it would take them too."""
    folder.mkdir(exist_ok=True)
    names = {f"{seed:06d}.png" for seed in seeds}
    others = [path for path in folder.glob("*.png") if path.name not in names]
    if others:
        common.fail(f"{folder} holds {len(others)} files of other seeds, perhaps of older weights: "
                    "remove them, or choose another --out")
    for first in tqdm(range(0, len(seeds), 64), "writing", disable=None, leave=False):
        part = seeds[first:first + 64]
        images = images_of(G, torch.stack([z_of(seed, latent_dim) for seed in part]))
        for seed, image in zip(part, images):
            with common.whole_file(folder / f"{seed:06d}.png") as file:
                to_picture(image).save(file, format="png")


def play(G, latent_dim, args):
    """For each seed: play_<seed>.png (a row for each number in z: the original, +value, -value),
    play_<seed>.csv (their ranking) and play_<seed>_top.png (the first ten, from -value to
    +value)."""
    values = [args.value * k / 5 for k in range(-5, 6)]  # of the first ten; exactly 0 in the middle
    for seed in args.seeds:
        z = z_of(seed, latent_dim)
        plus, minus = z.repeat(latent_dim, 1), z.repeat(latent_dim, 1)
        plus.fill_diagonal_(args.value)  # row i is z with its number i set
        minus.fill_diagonal_(-args.value)
        original = images_of(G, z.unsqueeze(0))
        up, down = images_of(G, plus), images_of(G, minus)
        rows = torch.stack([original.expand_as(up), up, down], dim=1).flatten(0, 1)
        save_labelled(args.out / f"play_{seed}.png", rows,
                      row_names=[f"z[{i}]" for i in range(latent_dim)],
                      column_names=["original", signed(args.value), signed(-args.value)])

        # how much a number changes the image: the mean over the pixels, on the scale of [-1, 1]
        change_up = (up - original).abs().mean(dim=(1, 2, 3))
        change_down = (down - original).abs().mean(dim=(1, 2, 3))
        change = (change_up + change_down) / 2
        ranking = change.argsort(descending=True).tolist()
        with common.whole_file(args.out / f"play_{seed}.csv") as file:
            file.write(b"dimension,change,change_plus,change_minus\n")
            for i in ranking:
                line = f"{i},{change[i]:.6g},{change_up[i]:.6g},{change_down[i]:.6g}\n"
                file.write(line.encode())

        top = ranking[:10]
        sweeps = z.repeat(len(top), len(values), 1)
        for row, i in enumerate(top):
            sweeps[row, :, i] = torch.tensor(values)
        save_labelled(args.out / f"play_{seed}_top.png", images_of(G, sweeps.flatten(0, 1)),
                      row_names=[f"z[{i}]" for i in top],
                      column_names=[signed(value) for value in values])
        print(f"seed {seed}: the image depends most on dimensions {', '.join(map(str, top))}")


def signed(value):
    """3.0 -> '+3', -2.4 -> '-2.4', 0.0 -> '0'"""
    return f"{value:+g}" if value else "0"


def slerp(a, b, t):
    """From a to b (latent_dim,) along an arc, t in [0, 1] as (N, 1). Returns (N, latent_dim).

    Samples of N(0, 1) in many dimensions lie near a sphere of radius sqrt(latent_dim). The middle
    of a straight line is shorter, by a factor of about sqrt(2), and G has seen few such z.
    """
    angle = torch.acos(torch.nn.functional.cosine_similarity(a, b, dim=0).clamp(-1, 1))
    if angle.sin() < 1e-4:  # parallel: there is no arc, or no single one
        return torch.lerp(a, b, t)
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


def between(G, space, a, b, frames):
    """The images from z a to z b, both ends exact: (frames, C, H, W)."""
    t = torch.arange(frames).div(frames - 1).unsqueeze(1)
    if space == "screen":  # a fade: the average of two pictures
        start, end = images_of(G, torch.stack([a, b]))
        return torch.lerp(start, end, t.view(-1, 1, 1, 1))
    if space == "sphere":
        return images_of(G, slerp(a, b, t))
    return images_of(G, torch.lerp(a, b, t))


def walk(G, latent_dim, args):
    """walk_<seeds>_<space>: as PNG, a strip of 11 pictures from each seed to the next; as GIF and
    as MP4, the whole way and back to the first seed. With --space all, the three spaces are below
    one another (PNG) or side by side."""
    spaces = ["latent", "sphere", "screen"] if args.space == "all" else [args.space]
    pairs = list(itertools.pairwise(args.seeds))
    if len(args.seeds) > 2:
        pairs.append((args.seeds[-1], args.seeds[0]))  # a closed tour
    legs = {}  # space -> the images of each leg
    for space in spaces:
        legs[space] = [between(G, space, z_of(a, latent_dim), z_of(b, latent_dim), args.frames)
                       for a, b in pairs]

    name = f"walk_{short_name(args.seeds)}_{args.space}"
    shown = torch.linspace(0, args.frames - 1, min(11, args.frames)).round().long()
    strips = torch.cat([images[shown] for space in spaces for images in legs[space]])
    if len(pairs) == 1:
        row_names, (first, last) = spaces, args.seeds
        ends = [f"seed {first}", f"seed {last}"]
    else:  # each row has two seeds of its own
        row_names = [f"{space} {a} to {b}" for space in spaces for a, b in pairs]
        ends = ["from", "to"]
    column_names = [ends[0], *[""] * (len(shown) - 2), ends[1]]
    save_labelled(args.out / f"{name}.png", strips, row_names, column_names)

    films = []
    for space in spaces:
        if len(pairs) == 1:  # there and back, each end once
            there = legs[space][0]
            films.append(torch.cat([there, there[1:-1].flip(0)]))
        else:  # the last picture of a leg is the first of the next one
            films.append(torch.cat([images[:-1] for images in legs[space]]))
    films = torch.cat(films, dim=3)
    scale = max(2, 192 // films.shape[2] // 2 * 2)  # even, as yuv420p wants even sizes
    frames = enlarge(films, scale)
    with common.whole_file(args.out / f"{name}.gif") as file:
        frames[0].save(file, format="gif", save_all=True, append_images=frames[1:], loop=0,
                       duration=1000 / FRAMES_PER_SECOND)
    save_mp4(args.out / f"{name}.mp4", frames)


def short_name(seeds):
    """[140, 180] -> '140-180'. Of very many seeds the first ones, and a checksum: a file's name has
    255 bytes at most."""
    name = "-".join(str(seed) for seed in seeds)
    if len(name) <= 100:
        return name
    return f"{name[:80]}-{zlib.crc32(name.encode()):08x}"


def to_picture(image):
    """An image (C, H, W) in [-1, 1] as a PIL image; a grey one in equal red, green and blue."""
    pixels = ((image + 1) * 127.5).round().clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).expand(-1, -1, 3).contiguous().numpy())


def enlarge(images, scale):
    """Images (N, C, H, W) as PIL images, each pixel a square of `scale` x `scale`."""
    pictures = []
    for image in images:
        picture = to_picture(image)
        size = (picture.width * scale, picture.height * scale)
        pictures.append(picture.resize(size, Image.Resampling.NEAREST))
    return pictures


def save_labelled(path, images, row_names, column_names):
    """Save a grid of images as one PNG, with a name on the left of each row and above each column.

    images: (R * K, C, H, W) in [-1, 1], row by row, for R row names and K column names.
    """
    # enlarged, so that they can be seen on a projector: 28 x 28 becomes 112 x 112
    pictures = enlarge(images, scale=max(1, 128 // images.shape[2]))
    width, height = pictures[0].size
    font = ImageFont.load_default(size=24)
    gap = 8
    # from one picture to the next; a very long name moves the columns apart
    across = max(width, *[math.ceil(font.getlength(name)) for name in column_names]) + gap
    down = height + gap
    left = max(math.ceil(font.getlength(name)) for name in row_names) + 2 * gap
    top = 24 + 2 * gap
    page = Image.new("RGB", (left + across * len(column_names), top + down * len(row_names)),
                     "white")
    draw = ImageDraw.Draw(page)
    for row, name in enumerate(row_names):  # rm: the text ends on the right, at half its height
        draw.text((left - gap, top + down * row + height // 2), name, "black", font, anchor="rm")
    for column, name in enumerate(column_names):  # mm: its middle
        draw.text((left + across * column + width // 2, top // 2), name, "black", font, anchor="mm")
    for i, picture in enumerate(pictures):
        row, column = divmod(i, len(column_names))
        page.paste(picture, (left + across * column, top + down * row))
    with common.whole_file(path) as file:
        page.save(file, format="png", compress_level=1)  # 3 times as fast, 10% larger


def save_mp4(path, frames):
    """Save PIL images as H.264 with yuv420p colours, which every browser plays."""
    import av  # brings its own FFmpeg

    with common.whole_file(path) as file, av.open(file, "w", format="mp4") as video:
        stream = video.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "18"})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            video.mux(stream.encode(av.VideoFrame.from_image(frame)))
        video.mux(stream.encode())  # the frames that the encoder still holds


def export(G, args):
    """Write the generator alone: its weights in half precision, what is needed to build it again,
    and the flags of its run that are no paths. The file has a third (SGD) to a tenth (Adam) of a
    checkpoint's size."""
    saved = common.load_checkpoint(args.checkpoint)
    learned = {name for name, _ in G.named_parameters()}
    weights = {}
    for name, value in saved["G"].items():
        if name in learned and value.is_floating_point():
            # BatchNorm's buffers stay as they are: its counter may exceed what float16 can hold
            value = value.half()
            if not value.isfinite().all():
                common.fail(f"{args.checkpoint}: {name} is not finite in half precision")
        weights[name] = value
    private = ("data", "out", "resume", "compare", "device")  # paths of the owner's machine
    flags = {name: value for name, value in saved["args"].items() if name not in private}
    if Path(args.out).exists():
        common.fail(f"--out {args.out} is there already: name another file, or remove it")
    common.save_whole(args.out, {
        "export": True, "script": saved["script"], "generator": saved["generator"], "G": weights,
        "args": flags, "step": saved["step"], "epoch": saved["epoch"],
        "versions": {"python": sys.version, "torch": str(torch.__version__)}})


def main(argv=None):
    args = parse_args(argv)
    if args.command == "export":
        G, _ = load_generator(args.checkpoint, torch.device("cpu"), args.script)
        export(G, args)
    else:
        device = common.pick_device(args.device, training=False)
        G, latent_dim = load_generator(args.checkpoint, device, args.script)
        if not args.out:
            args.out = output_folder(args.checkpoint, "explore_latent", "explore")
        args.out = Path(args.out)
        args.out.mkdir(parents=True, exist_ok=True)
        if args.command == "sample":
            sample(G, latent_dim, args)
        elif args.command == "play":
            play(G, latent_dim, args)
        else:
            walk(G, latent_dim, args)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    common.launch(main)
