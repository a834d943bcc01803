"""Labelled pictures: the packaged ones, users' folders, and what a network is fed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lrqmm.bench.data.pictures import Preprocessing, labelled_pictures

BGR = Preprocessing("BGR", mean=(1, 2, 3), std=(1, 1, 1))


def save_picture(file: Path, shade: int = 0) -> None:
    file.parent.mkdir(exist_ok=True, parents=True)
    Image.new("L", (9, 6), shade).save(file)


def shades(pictures) -> list[tuple[str, int, int]]:
    return [(name, image.getpixel((0, 0))[0], label) for name, image, label in pictures]


def test_packaged_pictures():
    pictures = labelled_pictures()
    assert len(pictures) == len(list(pictures)) == 20
    names, images, labels = zip(*pictures, strict=True)
    assert names == tuple(sorted(names))
    assert names[0] == "imagenet_00_243.jpg"
    assert labels[:4] == (243, 559, 438, 990)
    assert {image.mode for image in images} == {"RGB"}


def test_preprocessing_crops_and_orders_channels():
    picture = np.zeros((512, 1024, 3), np.uint8)
    picture[:, 512:] = (200, 100, 50)  # red, green, blue of the right half
    x = BGR(Image.fromarray(picture))
    assert x.shape == (3, 224, 224)
    assert x.dtype == torch.float32
    np.testing.assert_array_equal(x[:, 100, 10], [-1, -2, -3])
    np.testing.assert_array_equal(x[:, 100, 210], [49, 98, 197])
    edge = (x[0, 100] > 25).nonzero()[0].item()
    assert edge == 112  # the crop is centred
    portrait = BGR(Image.fromarray(picture.transpose(1, 0, 2)))
    torch.testing.assert_close(portrait, x.transpose(1, 2))


def test_preprocessing_in_rgb_divides_by_std():
    wanted = Preprocessing("RGB", mean=(100, 50, 0), std=(10, 5, 2), resize=32, crop=16)
    x = wanted(Image.new("RGB", (64, 48), (200, 100, 50)))
    assert x.shape == (3, 16, 16)
    np.testing.assert_array_equal(x[:, 3, 3], [10, 10, 25])
    with pytest.raises(ValueError, match="crop is 224; allowed: 1 to resize = 200"):
        Preprocessing("RGB", mean=(0, 0, 0), std=(1, 1, 1), resize=200)


def test_batches_are_all_pictures_in_order():
    pictures = labelled_pictures()[:5]
    batches = list(pictures.batches(2, BGR))
    assert [len(inputs) for inputs, _ in batches] == [2, 2, 1]
    inputs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert labels.tolist() == [label for _, _, label in pictures]
    torch.testing.assert_close(inputs, torch.stack([BGR(image) for _, image, _ in pictures]))


def test_flat_folder_with_labels(tmp_path):
    for shade, name in enumerate(("b.png", "a.png", "sub/c.png")):
        save_picture(tmp_path / name, shade)
    table = "label,file,note\n999,b.png,x\n0,a.png,\n7,sub/c.png,\n"
    (tmp_path / "labels.csv").write_text(table)
    pictures = labelled_pictures(tmp_path)
    want = [("b.png", 0, 999), ("a.png", 1, 0), ("sub/c.png", 2, 7)]
    assert shades(pictures) == want
    assert shades(pictures) == want  # again: they are opened anew
    assert shades(pictures[1:]) == want[1:]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,label\na.png,1000\n", r"labels\.csv, line 2: label '1000'; allowed: 0 to 999"),
        ("file,label\na.png,1\na.png,-1\n", "line 3: label '-1'"),
        ("file,label\na.png,cat\n", "label 'cat'; allowed: 0 to 999"),
        ("file,label\na.png\n", "line 2: label ''"),
        ("file,label\nb.png,1\n", r"line 2: no such file 'b\.png'"),
        ("name,label\na.png,1\n", r"columns \['name', 'label'\]; allowed: file,label"),
        ("", "columns None; allowed: file,label"),
        ("file,label\n", "none are there; allowed: .*labels.csv"),
    ],
)
def test_wrong_labels(table, message, tmp_path):
    save_picture(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        labelled_pictures(tmp_path)


def test_all_class_folders_are_classes_in_sorted_order(tmp_path):
    for label in reversed(range(1000)):
        (tmp_path / f"n{label * 7:08}").mkdir()
    save_picture(tmp_path / "n00000000" / "y.png", 3)
    save_picture(tmp_path / "n00000000" / "x.png", 2)
    save_picture(tmp_path / "n00006993" / "z.JPEG", 1)
    (tmp_path / "README").touch()
    want = [("n00000000/x.png", 2, 0), ("n00000000/y.png", 3, 0), ("n00006993/z.JPEG", 1, 999)]
    assert shades(labelled_pictures(str(tmp_path))) == want


def test_pictures_named_after_their_class(tmp_path):
    for label in range(999, -1, -1):
        (tmp_path / f"n{label * 7:08}_name of it.JPEG").touch()
    save_picture(tmp_path / "n00000000_a.png", 3)
    save_picture(tmp_path / "n00006993_b_c.JPEG", 1)
    (tmp_path / "README.md").touch()
    found = labelled_pictures(tmp_path)
    assert len(found) == 1002
    assert [label for _, _, label in found.entries] == [0, *range(1000), 999]
    assert shades(found[:1]) == [("n00000000_a.png", 3, 0)]


def test_folders_named_after_their_class_are_no_pictures(tmp_path):
    for label in range(1000):
        (tmp_path / f"n{label:08}_name").mkdir()
    save_picture(tmp_path / "n00000003_name" / "x.png", 7)
    assert shades(labelled_pictures(tmp_path)) == [("n00000003_name/x.png", 7, 3)]
    save_picture(tmp_path / "n00000004_x.JPEG")
    with pytest.raises(ValueError, match=r"both n00000004_x\.JPEG and folders of classes"):
        labelled_pictures(tmp_path)


def test_some_class_folders_need_the_list_of_classes(tmp_path):
    save_picture(tmp_path / "n00000021" / "a.png", 5)
    save_picture(tmp_path / "n00000011" / "b.png", 6)
    with pytest.raises(ValueError, match=r"without classes\.txt: 2 classes; allowed: 1000, or"):
        labelled_pictures(tmp_path)
    lines = [f"n{label:08} a name, another\n" for label in reversed(range(1000))]
    (tmp_path / "classes.txt").write_text("".join(lines))
    assert shades(labelled_pictures(tmp_path)) == [
        ("n00000011/b.png", 6, 988),
        ("n00000021/a.png", 5, 978),
    ]
    save_picture(tmp_path / "cats" / "c.png")
    with pytest.raises(ValueError, match=r"'cats' is no class; allowed: .*classes\.txt"):
        labelled_pictures(tmp_path)
    (tmp_path / "classes.txt").write_text("".join(lines[1:]))
    with pytest.raises(ValueError, match=r"classes\.txt: 999 classes; allowed: 1000"):
        labelled_pictures(tmp_path)


def test_no_pictures(tmp_path):
    with pytest.raises(ValueError, match=r"missing: no such folder; allowed: .*labels\.csv"):
        labelled_pictures(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"none are there; allowed: .*WNID"):
        labelled_pictures(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda data: b"no picture", lambda data: data[: len(data) // 2]]
)
def test_unreadable_picture_is_named_when_opened(damage, tmp_path):
    save_picture(tmp_path / "a.jpg")
    save_picture(tmp_path / "b.jpg")
    (tmp_path / "b.jpg").write_bytes(damage((tmp_path / "b.jpg").read_bytes()))
    (tmp_path / "labels.csv").write_text("file,label\na.jpg,1\nb.jpg,2\n")
    pictures = iter(labelled_pictures(tmp_path))
    assert next(pictures).label == 1
    with pytest.raises(ValueError, match=r"b\.jpg cannot be read: .*; allowed: .*JPEG"):
        next(pictures)
