"""The pictures that the detector learns from and is measured on, composed of scanned digits, and
how they enter the network."""

import io
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from detector_network import SIDE

CARD = tomllib.loads(Path(__file__).with_name("detector.toml").read_text())
FILL = CARD["input"]["fill"]
MAX_DIGITS = 8


@dataclass
class Scene:
    picture: np.ndarray  # [h,w,3] 8-bit RGB
    boxes: np.ndarray  # [k,4] left, top, right, bottom
    digits: np.ndarray  # [k]


def compose(rng, grey, digits, shape=None):
    """A picture with 0 to 8 of the given digits; `shape` is its width and height."""
    if shape is None:
        long = int(rng.choice([96, 128, 160, 192, 256], p=[0.3, 0.3, 0.2, 0.1, 0.1]))
        short = round(long * rng.choice([1, 3 / 4, 2 / 3, 9 / 16], p=[0.4, 0.4, 0.1, 0.1]))
        shape = (long, short) if rng.random() < 0.6 else (short, long)
    width, height = shape
    unit = max(shape) / SIDE  # picture pixels in a pixel of the input
    picture = ground(rng, width, height)
    boxes, chosen = [], []
    for _ in range(rng.integers(0, MAX_DIGITS + 1)):
        i = rng.integers(len(digits))
        tall = unit * 12 * (40 / 12) ** rng.random()
        ink = pen(rng, grey[i], tall)
        h, w = ink.shape
        for _ in range(12):
            left, top = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
            box = (left, top, left + w, top + h)
            if not any(crowded(box, other) for other in boxes):
                draw(rng, picture[top : top + h, left : left + w], ink)
                boxes.append(box)
                chosen.append(digits[i])
                break
    finished = finish(rng, picture, unit)
    return Scene(finished, np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(chosen, int))


def crowded(a, b):
    """Whether two boxes share more than a twentieth of the smaller."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    return w > 0 and h > 0 and w * h > smaller / 20


def colour(rng):
    """Half the time any colour, else a grey with a tinge."""
    if rng.random() < 0.5:
        return rng.uniform(0, 255, 3)
    return np.clip(rng.uniform(0, 255) + rng.normal(0, 8, 3), 0, 255)


def luminance(rgb):
    return rgb @ np.array([0.299, 0.587, 0.114])


def ground(rng, width, height):
    """What lies behind the digits: [h,w,3] in 0..255."""
    base = colour(rng)
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = base
    if rng.random() < 0.6:  # shade from one side to another
        angle = rng.uniform(0, 2 * np.pi)
        across = np.cos(angle) * np.linspace(-0.5, 0.5, width)
        down = np.sin(angle) * np.linspace(-0.5, 0.5, height)
        picture += (across + down[:, None])[..., None] * rng.normal(0, 50, 3)
    if rng.random() < 0.4:  # blotches
        cells = rng.integers(3, 9, 2)
        small = Image.fromarray(rng.normal(0, rng.uniform(5, 25), cells).astype(np.float32))
        blotches = small.resize((width, height), Image.Resampling.BICUBIC)
        picture += np.asarray(blotches)[..., None] * rng.uniform(0.5, 1, 3)
    for _ in range(rng.choice([0, 0, 0, 1, 2, 3])):  # sheets, signs and rules
        w, h = rng.uniform(0.02, 0.6, 2) * (width, height) + 1
        left, top = rng.uniform(-0.2, 1, 2) * (width, height)
        rows = slice(max(0, int(top)), max(0, int(top + h)))
        columns = slice(max(0, int(left)), max(0, int(left + w)))
        cover = rng.uniform(0.2, 0.9)
        picture[rows, columns] *= 1 - cover
        picture[rows, columns] += cover * colour(rng)
    return np.clip(picture, 0, 255)


def pen(rng, grey, tall):
    """The ink of a digit about `tall` pixels tall, in 0..1, cut to its extent."""
    scale = tall / 8 * np.exp(rng.normal(0, 0.08, 2))  # across, down
    angle, slant = np.clip(rng.normal(0, 0.13, 2), -0.35, 0.35)
    side = int(1.7 * tall) + 4
    cos, sin = np.cos(angle), np.sin(angle)
    # Maps a pixel of the result to one of the source, which has a margin of 4 on each side.
    matrix = np.array([[1, slant], [0, 1]]) @ np.array([[cos, -sin], [sin, cos]])
    matrix = np.diag(1 / scale) @ matrix
    offset = 8 - matrix @ [side / 2, side / 2]
    source = Image.fromarray(np.pad(grey, 4).astype(np.float32) / 255)
    affine = [*matrix[0], offset[0], *matrix[1], offset[1]]
    spread = source.transform(
        (side, side), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC
    )
    # A scan counts the ink of 4x4 finer pixels; a steep slope about the middle gives strokes again.
    steep = rng.uniform(1.2, 3.5)
    ink = np.clip((np.asarray(spread) - rng.uniform(0.3, 0.5)) * steep + 0.5, 0, 1)
    ink *= np.asarray(spread) > 0.05
    seen = ink > 0.35
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def draw(rng, where, ink):
    """Draws ink onto part of a picture, in a colour that stands out there."""
    behind = luminance(where.reshape(-1, 3).mean(0))
    tint = colour(rng)
    for _ in range(20):
        if abs(luminance(tint) - behind) >= 60:
            break
        tint = colour(rng)
    else:
        tint = np.full(3, 255.0 if behind < 128 else 0.0)
    cover = (ink * rng.uniform(0.75, 1))[..., None]
    where += cover * (tint - where)


def finish(rng, picture, unit):
    """What a camera does to a picture: blur, noise, JPEG."""
    if rng.random() < 0.7:
        picture = picture + rng.normal(0, rng.uniform(1, 14), picture.shape).astype(np.float32)
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(unit * rng.uniform(0.2, 0.8)))
    if rng.random() < 0.4:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(rng.integers(50, 95)))
        image = Image.open(file)
    return np.asarray(image)


def letterbox(picture):
    """A picture as the network takes it, 8-bit [96,96,3], and the way back: what a box's left,
    top, right and bottom there are less by, and then divided by."""
    height, width = picture.shape[:2]
    w, h = (max(1, side * SIDE // max(width, height)) for side in (width, height))
    left, top = (SIDE - w) // 2, (SIDE - h) // 2
    fitted = np.full((SIDE, SIDE, 3), FILL, np.uint8)
    image = Image.fromarray(picture).resize((w, h), Image.Resampling.BILINEAR)
    fitted[top : top + h, left : left + w] = np.asarray(image)
    return fitted, (np.array([left, top] * 2), np.array([w / width, h / height] * 2))


def learnable(scenes):
    """Scenes as arrays: pictures [n,96,96,3], boxes [n,8,4] in pixels of the input, digits
    [n,8], -1 where there is none."""
    pictures = np.empty((len(scenes), SIDE, SIDE, 3), np.uint8)
    boxes = np.zeros((len(scenes), MAX_DIGITS, 4), np.float32)
    digits = np.full((len(scenes), MAX_DIGITS), -1, np.int32)
    for i, scene in enumerate(scenes):
        pictures[i], (offset, scale) = letterbox(scene.picture)
        k = len(scene.digits)
        boxes[i, :k] = scene.boxes * scale + offset
        digits[i, :k] = scene.digits
    return pictures, boxes, digits
