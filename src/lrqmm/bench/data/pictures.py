"""Labelled pictures of ImageNet's 1000 classes: packaged, or from a user's folder.

Pictures are opened one at a time, when they are iterated over. Classes are numbered 0 to 999 in
ImageNet's usual order, that of the sorted WordNet identifiers (WNIDs, such as n01440764).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lrqmm.bench.data.packages import fetch, read_members

CLASSES = 1000
LAYOUTS = (
    "a folder with a folder of pictures for each class (WNID/*.JPEG), or a folder of pictures "
    "named after their class (WNID_*.JPEG) or with a file labels.csv (columns file,label)"
)
WNID = re.compile(r"n\d{8}_")


class Picture(NamedTuple):
    """A picture in RGB, its file's name below the folder, and its class (0 to 999)."""

    name: str
    image: Image.Image
    label: int


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its pictures; calling it turns a picture into the network's input.

    The short side becomes `resize` pixels, the middle crop x crop pixels are kept, and on the
    scale 0 to 255

        x = (picture - mean) / std      in each channel, in the order `channels`

    Attributes
    ----------
    channels : "RGB" or "BGR"
    mean, std : one value for each channel, in that order
    resize, crop : pixels; crop at most resize
    resampling : Pillow's filter of the resize
    """

    channels: Literal["RGB", "BGR"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: int = 256
    crop: int = 224
    resampling: Image.Resampling = Image.Resampling.BILINEAR

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize:
            raise ValueError(f"crop is {self.crop}; allowed: 1 to resize = {self.resize}")

    def __call__(self, image: Image.Image) -> Tensor:
        """float32, 3 x crop x crop, of a picture of any size."""
        scale = self.resize / min(image.size)
        width, height = (round(scale * side) for side in image.size)
        left, top = (width - self.crop) // 2, (height - self.crop) // 2
        image = image.convert("RGB").resize((width, height), self.resampling)
        image = image.crop((left, top, left + self.crop, top + self.crop))
        x = torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1)
        if self.channels == "BGR":
            x = x.flip(0)
        mean, std = (torch.tensor(y)[:, None, None] for y in (self.mean, self.std))
        return ((x - mean) / std).contiguous()


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures that are opened one at a time, each time they are iterated over.

    ``len(pictures)`` counts them, ``pictures[::50]`` is every 50th, ``for name, image, label in
    pictures`` opens them.

    Attributes
    ----------
    entries : (name, file or its contents, label) of each picture
    """

    entries: tuple[tuple[str, Path | bytes, int], ...]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, part: slice) -> Pictures:
        return Pictures(self.entries[part])

    def spread(self, count: int) -> Pictures:
        """So many of them at equal distances; sorted by class, they spread over the classes."""
        return Pictures(tuple(self.entries[i * len(self) // count] for i in range(count)))

    def __iter__(self) -> Iterator[Picture]:
        for name, file, label in self.entries:
            yield Picture(name, _open(name, file), label)

    def batches(
        self, size: int, preprocess: Callable[[Image.Image], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs (size x 3 x h x w, float32) and labels (size, int64); the last is shorter.

        `preprocess` is a network's own, such as `ResNet50.preprocessing`.
        """
        pictures = iter(self)
        while batch := list(islice(pictures, size)):
            inputs = torch.stack([preprocess(picture.image) for picture in batch])
            yield inputs, torch.tensor([picture.label for picture in batch])


def labelled_pictures(source: str | Path | None = None) -> Pictures:
    """Find labelled pictures; none is opened yet.

    Parameters
    ----------
    source : a folder with labels.csv, whose columns are file (a path below the folder) and label (0
        to 999); with 1000 class folders, as ImageNet's val/, whose sorted names are the classes 0
        to 999; or with pictures side by side whose names begin with their class
        (n01440764_tench.JPEG). With fewer classes it must hold classes.txt: 1000 lines, of which
        line i begins with the name (WNID) of class i - 1, as ImageNet's LOC_synset_mapping.txt
        does. None: the 20 pictures of the package foolbox

    Returns
    -------
    them sorted by name, or in the order of labels.csv

    Raises
    ------
    ValueError : the folder has no pictures in one of these layouts, or a label out of range; a file
        that is no picture is found when it is opened
    """
    if source is None:
        files = read_members(fetch("foolbox"), "foolbox/data/")  # imagenet_NN_LABEL.jpg
        entries = [
            (name, data, int(Path(name).stem.split("_")[2]))
            for name, data in sorted(files.items())
            if name.startswith("imagenet_")
        ]
        return Pictures(tuple(entries))
    folder = Path(source)
    if not folder.is_dir():
        raise ValueError(f"pictures {folder}: no such folder; allowed: {LAYOUTS}")
    listed = folder / "labels.csv"
    names = _from_csv(listed) if listed.exists() else _by_class(folder)
    if not names:
        raise ValueError(f"pictures {folder}: none are there; allowed: {LAYOUTS}")
    return Pictures(tuple((name, folder / name, label) for name, label in names))


def _from_csv(listed: Path) -> list[tuple[str, int]]:
    """(file, label) of each line of a labels.csv, whose files must exist."""
    with listed.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        if not {"file", "label"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{listed}: columns {reader.fieldnames}; allowed: file,label")
        lines = [(reader.line_num, line["file"] or "", line["label"] or "") for line in reader]
    for number, name, label in lines:
        if not (label.strip().isdecimal() and int(label) < CLASSES):
            raise ValueError(f"{listed}, line {number}: label {label!r}; allowed: 0 to 999")
        if not (listed.parent / name).is_file():
            raise ValueError(f"{listed}, line {number}: no such file {name!r}")
    return [(name, int(label)) for _, name, label in lines]


def _by_class(folder: Path) -> list[tuple[str, int]]:
    """(file, class) of each picture, sorted: WNID_*.JPEG, or ImageNet's val/WNID/*.JPEG."""
    inside = sorted(file.name for file in _visible(folder))
    folders = [name for name in inside if (folder / name).is_dir()]
    files = {
        name: name.partition("_")[0] for name in inside if WNID.match(name) and name not in folders
    }
    if files and any(WNID.match(f"{name}_") for name in folders):
        raise ValueError(
            f"pictures {folder}: both {next(iter(files))} and folders of classes are "
            "there; allowed: one of both"
        )
    wnids = sorted(set(files.values())) or folders
    classes = _classes(folder, wnids)
    for wnid in wnids:
        if wnid not in classes:
            raise ValueError(
                f"pictures {folder}: {wnid!r} is no class; allowed: the first words of the "
                f"lines of {folder / 'classes.txt'}"
            )
    files = files or {
        f"{wnid}/{file.name}": wnid for wnid in wnids for file in sorted(_visible(folder / wnid))
    }
    return [(name, classes[wnid]) for name, wnid in files.items()]


def _classes(folder: Path, wnids: list[str]) -> dict[str, int]:
    """Class of each WNID: from classes.txt where there is one, else from 1000 sorted names."""
    listed = folder / "classes.txt"
    if listed.exists():
        lines = listed.read_text(encoding="utf-8").splitlines()
        wnids = [line.split()[0] for line in lines if line.strip()]
        where = str(listed)
    else:
        where = f"pictures {folder} without classes.txt"
    if wnids and len(set(wnids)) != CLASSES:
        raise ValueError(
            f"{where}: {len(set(wnids))} classes; allowed: 1000, or a file "
            "classes.txt of 1000 lines that begin with the WNIDs of the classes 0 to 999 (as "
            "ImageNet's LOC_synset_mapping.txt)"
        )
    return {wnid: number for number, wnid in enumerate(wnids)}


def _visible(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if not file.name.startswith(".")]


def _open(name: str, file: Path | bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"picture {name if isinstance(file, bytes) else file} cannot be read: {error}; "
            "allowed: what Pillow opens (JPEG, PNG, ...)"
        ) from error
