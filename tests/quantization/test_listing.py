"""Labels of folders and tables: what is taken, what is said, what is refused and where."""

from pathlib import Path

import pytest

from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.class_names import read_classes
from vitq.quantization.pictures.listing import Listing, Origin, list_pictures, matched
from vitq.quantization.pictures.tables import read_table


def touch(folder: Path, *names: str) -> Path:
    """Files that are called like pictures."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(folder: Path, classes: Path | None = None) -> list[tuple[str, int | None]]:
    """Name and label of each picture."""
    listing = list_pictures(folder, classes)
    return [(entry.file.relative_to(folder).as_posix(), entry.label) for entry in listing.entries]


def notes(folder: Path) -> str:
    """What is said."""
    return "\n".join(list_pictures(folder).notes)


def test_hidden_and_empty_folders_are_no_classes(tmp_path: Path) -> None:
    touch(tmp_path, "ant/1.png", "bee/1.png", ".ipynb_checkpoints/1-checkpoint.png", "bee/._1.png")
    (tmp_path / "aaa").mkdir()
    (tmp_path / "azz" / "deep").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    assert found(tmp_path) == [("ant/1.png", 0), ("bee/1.png", 1)]
    assert "2 empty (aaa, azz): no classes" in notes(tmp_path)
    assert "1 hidden (.ipynb_checkpoints): no classes" in notes(tmp_path)


def test_hidden_files_are_no_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.JPG", "._a.JPG")
    assert found(tmp_path) == [("a.JPG", None), ("b.png", None)]
    assert "1 hidden (._a.JPG): left out" in notes(tmp_path)
    assert list_pictures(tmp_path).labels is None


def test_names_of_numbers_are_those_numbers(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{k}/x.png" for k in (0, 2, 10, 11, 1)))
    listing = list_pictures(tmp_path)
    assert listing.origin is Origin.NUMBERS
    assert "called by numbers, 0 to 11: these are the labels" in listing.notes[0]
    assert listing.classes == [0, 1, 2, 10, 11]
    assert [entry.file.parent.name for entry in listing.entries] == ["0", "1", "2", "10", "11"]
    touch(tmp_path, "010/x.png")
    with pytest.raises(VitqError, match="two class folders have the same number"):
        list_pictures(tmp_path)


def test_names_that_begin_with_numbers_are_said(tmp_path: Path) -> None:
    touch(tmp_path / "a", *(f"{k}_x/x.png" for k in (1, 2, 10)))
    assert "10_x is 0, 2_x is 2" in notes(tmp_path / "a") and "--classes" in notes(tmp_path / "a")
    touch(tmp_path / "b", *(f"{k}_x/x.png" for k in (0, 1, 2)))
    assert notes(tmp_path / "b") == ""


def test_a_folder_number_that_is_none(tmp_path: Path) -> None:
    touch(tmp_path, "0/x.png", f"{2**70}/x.png")
    with pytest.raises(VitqError, match="the largest class number is 2147483647"):
        list_pictures(tmp_path)


def test_a_mixed_folder_is_said(tmp_path: Path) -> None:
    touch(tmp_path / "a", "preview.png", "ant/1.png", "bee/1.png")
    assert found(tmp_path / "a") == [("ant/1.png", 0), ("bee/1.png", 1)]
    assert "1 pictures at the top and 2 in 2 folders" in notes(tmp_path / "a")
    touch(tmp_path / "b", "1.png", "2.png", "thumbs/1.png")
    assert found(tmp_path / "b") == [("1.png", None), ("2.png", None)]
    assert "the pictures at the top are taken" in notes(tmp_path / "b")


def test_pictures_below_class_folders(tmp_path: Path) -> None:
    touch(tmp_path / "a", "ant/images/1.png", "bee/images/1.png")
    assert found(tmp_path / "a") == [("ant/images/1.png", 0), ("bee/images/1.png", 1)]
    touch(tmp_path / "b", "train/ant/1.png", "train/bee/1.png", "val/ant/1.png")
    with pytest.raises(VitqError, match=r"\(*train, val hold class folders themselves.*b/train"):
        list_pictures(tmp_path / "b")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.json", '{"zebra": 0, "ape": 3}'),
        ("c.json", '{"0": "zebra", "3": "ape"}'),
        ("c.json", '{"0": ["n1", "zebra"], "3": ["n2", "ape"]}'),
        ("c.json", '{"id2label": {}, "label2id": {"zebra": 0, "ape": 3}}'),
        ("c.json", '["zebra", "x", "y", "ape"]'),
        ("c.txt", "zebra\nx\ny\nape\n\n"),
    ],
)
def test_classes_from_a_file(name: str, content: str, tmp_path: Path) -> None:
    folder = touch(tmp_path / "p", "ape/1.png", "zebra/1.png")
    (tmp_path / name).write_text(content)
    assert found(folder, tmp_path / name) == [("zebra/1.png", 0), ("ape/1.png", 3)]
    listing = list_pictures(folder, tmp_path / name)
    assert listing.names[3] == "ape" and listing.files == (tmp_path / name,)
    beside = folder / ("classes.txt" if name == "c.txt" else "class_to_idx.json")
    beside.write_text(content)
    assert found(folder) == [("zebra/1.png", 0), ("ape/1.png", 3)]
    assert f"are those of {beside.name}" in notes(folder)


def test_a_class_that_the_file_lacks(tmp_path: Path) -> None:
    folder = touch(tmp_path / "p", "ape/1.png", "zebras/1.png")
    (tmp_path / "c.txt").write_text("ape\nzebra\ncrane\ncrane\n")
    with pytest.raises(VitqError, match=r"class 'zebras' is not in .*c\.txt \(nearest: 'zebra'\)"):
        list_pictures(folder, tmp_path / "c.txt")
    with pytest.raises(VitqError, match="has several classes 'crane': use numbers"):
        read_classes(tmp_path / "c.txt").number("crane", "here")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.json", "{", "are no JSON"),
        ("c.json", "3", "hold a int"),
        ("c.json", '{"ape": "x"}', "is no class"),
        ("c.json", '{"ape": true}', "is no class"),
        ("c.json", '{"0": []}', "is no class"),
        ("c.json", '{"ape": -1}', "numbers start at 0"),
        ("c.txt", "", "are empty"),
        ("c.txt", "a\n\nb", "class 1 has an empty name"),
        ("c.txt", "\xff", "is not UTF-8"),
        ("c.json", "[" * 100_000, "are no JSON"),
    ],
)
def test_damaged_classes(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(VitqError, match=message) as caught:
        read_classes(tmp_path / name)
    assert len(str(caught.value)) < 400 and str(tmp_path / name) in str(caught.value)


def test_missing_classes(tmp_path: Path) -> None:
    with pytest.raises(VitqError, match=r"classes .*none\.txt cannot be read \(No such file"):
        read_classes(tmp_path / "none.txt")


@pytest.mark.parametrize(
    "content",
    [
        "a.png,3\nb.png,12\n",
        "a.png;3\nb.png;12\n",
        "a.png,3.0\nb.png,12.00\n",
        "a.png\t3\r\nb.png\t12\r\n",
        '"a.png","3"\n"b.png","12"\n',
        "Datei;Klasse\na.png;3\nb.png;12\n",
        "图片,标签\na.png, 3\n\n b.png ,+12\n",
        "\ufefffile,label,name\na.png,3,ant\nb.png,012,bee\n",
    ],
)
def test_tables_in_every_dress(content: str, tmp_path: Path) -> None:
    (touch(tmp_path, "a.png", "b.png") / "labels.csv").write_text(content, encoding="utf-8")
    assert found(tmp_path) == [("a.png", 3), ("b.png", 12)]
    assert list_pictures(tmp_path).names == ({3: "ant", 12: "bee"} if "ant" in content else {})
    assert notes(tmp_path) == ""


def test_a_table_of_other_letters(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes("ä.png,1".encode("latin-1"))
    with pytest.raises(VitqError, match=r"the table .*labels\.csv cannot be read: it is not UTF-8"):
        list_pictures(tmp_path)


def test_a_name_with_the_delimiter(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text('"a, b.png";1\n"say ""hi"".png";2\n')
    assert found(tmp_path) == [("a, b.png", 1), ('say "hi".png', 2)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.png,-1\n", r"line 1: class '-1': class numbers start at 0"),
        ("a.png,1\nb.png,-5\n", r"line 2: class '-5'"),
        (f"a.png,{2**70}\n", "line 1: class '1180591620717411303424': the largest"),
        (f"a.png,{'9' * 5000}\n", r"line 1: class '9{40}\.\.\.': the largest"),
        ("a.png,cat\n", r"line 1: class 'cat' is no whole number \(names need --classes FILE\)"),
        ("a.png,3.5\n", "line 1: class '3.5' is no whole number"),
        ("file,label\na.png\n", "line 2: 'a.png' is only one cell"),
        (",1\n", "line 1: ',1' is only one cell"),
        ("a.png,1\n/etc/b.png,2\n", "line 2: '/etc/b.png' lies outside of"),
        ("../b.png,2\n", r"line 1: '\.\./b\.png' lies outside of"),
        ("a.png,1\na.png,2\n", "line 2: a.png is class 2 here and 1 in line 1"),
        (f'a.png,1\n"{"x" * 140_000}",1\n', "line 2: field larger than"),
        ("a.png,1\nb\0.png,1\n", "line 2: .* is no file name; each line needs"),
        ("1,a.png\n", "line 1: class 'a.png' is no whole number"),
    ],
)
def test_bad_lines_are_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(VitqError, match=message) as caught:
        list_pictures(tmp_path)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_absolute_names_inside_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(f"{tmp_path / 'sub' / 'a.png'},1\n")
    assert found(tmp_path) == [("sub/a.png", 1)]


def test_repeated_and_missing_lines_are_said(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "labels.csv").write_text("a.png,1\nb.png,2\na.png,1\n")
    assert found(tmp_path) == [("a.png", 1), ("b.png", 2), ("a.png", 1)]
    assert "line 3 repeats a.png of line 1; 1 lines repeat a file" in notes(tmp_path)
    assert "lists 2 pictures and lacks 1 of the folder" in notes(tmp_path)


def test_tables_of_names(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("a.png,bee\nb.png,ant\n")
    (tmp_path / "c.txt").write_text("ant\nbee\n")
    assert found(tmp_path, tmp_path / "c.txt") == [("a.png", 1), ("b.png", 0)]
    with pytest.raises(VitqError, match="line 2: class 'ant' is not in"):
        (tmp_path / "c.txt").write_text("bee\n")
        list_pictures(tmp_path, tmp_path / "c.txt")


def listing_of(folder: Path, *names: str) -> Listing:
    """A folder of class folders with a picture each."""
    return list_pictures(touch(folder, *(f"{name}/x.png" for name in names)))


def test_labels_are_held_against_the_outputs(tmp_path: Path) -> None:
    complete = listing_of(tmp_path / "a", "ant", "bee")
    assert matched(complete, 2) is complete
    with pytest.raises(VitqError, match=r"a has 2 class folders and the model 10 outputs.*--class"):
        matched(complete, 10)
    with pytest.raises(VitqError, match=r"a/bee: class 1, but the model has 1 outputs: classes 0"):
        matched(complete, 1)
    numbered = listing_of(tmp_path / "b", "0", "7")
    assert matched(numbered, 10) is numbered
    with pytest.raises(VitqError, match="b/7: class 7, but the model has 7 outputs"):
        matched(numbered, 7)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "labels.csv").write_text("a.png,3\nb.png,99\n")
    with pytest.raises(VitqError, match=r"labels\.csv line 2: class 99, but the model has 10"):
        matched(list_pictures(tmp_path / "c"), 10)


def test_imagenet_identifiers(tmp_path: Path) -> None:
    some = listing_of(tmp_path, "n01440764", "n15075141", "n01443537")
    found = matched(some, 1000)
    assert found.classes == [0, 1, 999] and found.names[999] == "n15075141"
    assert "ImageNet's numbers" in "\n".join(found.notes)
    with pytest.raises(VitqError, match="3 class folders and the model 4 outputs"):
        matched(some, 4)


def test_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("\ufefffile,label\n", encoding="utf-8")
    assert read_table(tmp_path / "labels.csv").entries == ()
