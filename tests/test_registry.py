"""One object per file, found by its file's name."""

import sys

import pytest

from lrqmm._registry import Registry


@pytest.fixture
def colours(tmp_path, monkeypatch):
    """A package of two colours and a shared part, and what lists them."""
    folder = tmp_path / "paints"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "_mix.py").write_text("raise ImportError('a shared part is no colour')")
    for name in ("red", "blue"):
        write(folder, name, name)
    monkeypatch.syspath_prepend(tmp_path)
    import paints

    yield Registry(paints.__name__, "COLOUR"), folder
    for name in [name for name in sys.modules if name.split(".")[0] == "paints"]:
        del sys.modules[name]


def write(folder, file, name):
    line = "from types import SimpleNamespace\nCOLOUR = SimpleNamespace(name={!r})\n"
    (folder / f"{file}.py").write_text(line.format(name))


def test_files_are_listed_and_imported_when_asked_for(colours):
    registry, _ = colours
    assert registry.names() == ["blue", "red"]
    assert "paints.red" not in sys.modules
    assert registry.get("red").name == "red"
    assert "paints.blue" not in sys.modules


def test_a_folder_on_the_path_adds_its_files(colours, tmp_path, monkeypatch):
    registry, _ = colours
    (tmp_path / "more").mkdir()
    write(tmp_path / "more", "green", "green")
    package = sys.modules["paints"]
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "more")])
    assert registry.names() == ["blue", "green", "red"]
    assert registry.get("green").name == "green"


def test_a_near_miss_is_told(colours):
    with pytest.raises(ValueError, match=r"colour is 'rad' \(did you mean 'red'\?\); allowed: 'bl"):
        colours[0].get("rad")


def test_a_file_names_its_own_object(colours):
    registry, folder = colours
    write(folder, "red", "rouge")
    with pytest.raises(ValueError, match=r"red.py defines COLOUR named 'rouge'; allowed: 'red'"):
        registry.get("red")
    (folder / "blue.py").write_text("")
    with pytest.raises(ValueError, match=r"blue.py defines no COLOUR; allowed: one named 'blue'"):
        registry.get("blue")
