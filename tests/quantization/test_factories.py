"""Factories beside the user's other files: what is imported, and which files decide it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vitq.models import timm_compat
from vitq.numerics.errors import VitqError
from vitq.quantization.model.factories import call_factory, factory_files, loaded_files


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, empty, and on the import path as little as for the ``vitq`` script."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)
    finders = list(sys.meta_path)
    yield tmp_path
    assert sys.meta_path == finders and str(tmp_path) not in sys.path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_module_in_the_current_folder(here: Path) -> None:
    (here / "vitq_my_model.py").write_text("def build():\n    return 7\n")
    assert call_factory("vitq_my_model:build") == 7


def test_what_it_imports_lies_there_too_even_when_it_is_called(here: Path) -> None:
    (here / "vitq_my_model.py").write_text(
        "def build():\n    import vitq_aid\n    return vitq_aid.X\n"
    )
    (here / "vitq_aid.py").write_text("X = 8\n")
    assert call_factory("vitq_my_model:build") == 8


def test_what_a_factory_prints_and_where_it_goes_is_its_own(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "vitq_my_model.py").write_text(
        "import os\nprint('imported')\n\ndef build():\n    print('built')\n"
        "    os.chdir('/')\n    return 9\n"
    )
    assert call_factory("vitq_my_model:build") == 9
    assert Path.cwd() == here
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "imported\nbuilt\n")


def test_the_folders_module_wins_over_an_installed_one(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    installed = tmp_path_factory.mktemp("site")
    for folder, value in ((installed, 1), (here, 2)):
        (folder / "vitq_both.py").write_text(f"def build():\n    return {value}\n")
    sys.path.append(str(installed))
    assert call_factory("vitq_both:build") == 2


def test_a_file_with_the_name_of_a_library_breaks_nothing(here: Path) -> None:
    for name in ("numpy", "json", "colorsys", "wave"):
        (here / f"{name}.py").write_text("raise RuntimeError('mine')\n")
    for name in ("colorsys", "wave"):
        sys.modules.pop(name, None)
    text = "import colorsys, numpy\nfrom wave import open\n\ndef build():\n    return numpy.pi\n"
    (here / "vitq_my_model.py").write_text(text)
    assert call_factory("vitq_my_model:build") == pytest.approx(3.14159, abs=1e-4)


def test_a_factory_with_the_name_of_a_library_in_use_is_refused(here: Path) -> None:
    (here / "numpy.py").write_text("def build():\n    return 7\n")
    with pytest.raises(VitqError, match=r"numpy\.py has the name of a module that is in use"):
        call_factory("numpy:build")


@pytest.mark.parametrize("name", ["vitq_none:build", "vitq_my_model:none", "a:b:c", "x:"])
def test_what_is_not_there_is_said(here: Path, name: str) -> None:
    (here / "vitq_my_model.py").write_text("")
    with pytest.raises(VitqError, match="cannot be imported"):
        call_factory(name)


BROKEN = {
    "def build():\n    return int('x')\n": r"raised an error: ValueError: .*vitq_my_model\.py:2",
    "def build(size):\n    pass\n": r"raised an error: TypeError: .*missing 1 required",
    "def build():\n    import sys\n    sys.exit(3)\n": r"SystemExit: 3 \(at vitq_my_model\.py:3",
    "def build():\n    assert False\n": r"AssertionError \(at vitq_my_model\.py:2",
    "def build(:\n": r"cannot be imported .*SyntaxError: .*\(at vitq_my_model\.py:1",
    "\n\nimport vitq_gone\n": r"cannot be imported .*No module named 'vitq_gone' \(at .*:3",
    "raise SystemExit('no')\n": r"cannot be imported .*SystemExit: no",
    "build = 3\n": "is a int: give a function without arguments",
}


@pytest.mark.parametrize("text", BROKEN)
def test_any_error_of_the_users_code_is_a_line_with_its_place(
    text: str, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (here / "vitq_my_model.py").write_text(text)
    with (
        caplog.at_level("DEBUG", "vitq"),
        pytest.raises(VitqError, match=BROKEN[text]) as raised,
    ):
        call_factory("vitq_my_model:build")
    assert "\n" not in str(raised.value)
    assert "Traceback" in caplog.text or "is a int" in str(raised.value), "-v shows it"


def test_a_factory_may_import_what_needs_the_repair(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``import timm`` does where torch and torchvision come from different builds."""
    done: list[None] = []
    monkeypatch.setattr(timm_compat, "_STUBS", done)
    monkeypatch.setattr(timm_compat, "_declare", lambda: done.append((here / "repaired").touch()))
    broken = (
        "from pathlib import Path\n"
        "if not Path('repaired').exists():\n"
        "    raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    (here / "vitq_aid.py").write_text(broken)
    (here / "vitq_my_model.py").write_text(
        "def build():\n    import vitq_aid\n    return vitq_aid.Path('here').name\n"
    )
    assert call_factory("vitq_my_model:build") == "here"
    (here / "vitq_second.py").write_text("import vitq_aid2\n")
    (here / "vitq_aid2.py").write_text(broken.replace("'repaired'", "'repaired2'"))
    with pytest.raises(VitqError, match="torchvision::nms does not exist"):
        call_factory("vitq_second:build")


def write_package(folder: Path) -> None:
    """A factory whose files import each other in every way."""
    files = {
        "vitq_pack/__init__.py": "",
        "vitq_pack/unused.py": "",
        "vitq_pack/model.py": (
            "import torch, numpy.linalg, json\n"
            "from . import blocks\n"
            "from .deep.layers import Layer\n"
            "def build():\n"
            "    from vitq_beside import helper\n"
            "    import importlib\n"
            "    return importlib.import_module('vitq_hid' + 'den').X\n"
        ),
        "vitq_pack/blocks.py": "from ... import above\nfrom ...above import x\nimport vitq_gone\n",
        "vitq_pack/deep/__init__.py": "from .. import blocks as again\n",
        "vitq_pack/deep/layers.py": "Layer = 1\n",
        "vitq_beside/helper.py": "import vitq_leaf as leaf\n",
        "vitq_leaf.py": "def broken(:\n",
        "vitq_hidden.py": "X = 5\n",
        "vitq_other.py": "",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_all_files_that_are_imported_are_found_by_reading(here: Path) -> None:
    write_package(here)
    before = set(sys.modules)
    found = factory_files("vitq_pack.model:build")
    assert {name: str(path.relative_to(here)) for name, path in found.items()} == {
        "vitq_pack": "vitq_pack/__init__.py",
        "vitq_pack.model": "vitq_pack/model.py",
        "vitq_pack.blocks": "vitq_pack/blocks.py",
        "vitq_pack.deep": "vitq_pack/deep/__init__.py",
        "vitq_pack.deep.layers": "vitq_pack/deep/layers.py",
        "vitq_beside.helper": "vitq_beside/helper.py",
        "vitq_leaf": "vitq_leaf.py",
    }
    assert set(sys.modules) == before, "reading imported something"


def test_files_in_folders_without_init_are_found_before_anything_is_loaded(here: Path) -> None:
    folder = here / "vitq_outer" / "inner"
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text("from vitq_outer.inner import aid\n")
    (folder / "aid.py").write_text("")
    found = factory_files("vitq_outer.inner.mine:build")
    assert found == {f"vitq_outer.inner.{n}": folder / f"{n}.py" for n in ("aid", "mine")}


def test_what_no_reader_sees_is_found_when_it_is_loaded(here: Path) -> None:
    write_package(here)
    (here / "vitq_pack" / "blocks.py").write_text("")
    (here / "vitq_leaf.py").write_text("")
    before = set(sys.modules)
    assert call_factory("vitq_pack.model:build") == 5
    assert set(loaded_files("vitq_pack.model:build", before)) == {
        *("vitq_pack", "vitq_pack.model", "vitq_pack.blocks", "vitq_pack.deep"),
        *("vitq_pack.deep.layers", "vitq_beside.helper", "vitq_leaf", "vitq_hidden"),
    }


def test_an_installed_factory_is_its_own_package(here: Path) -> None:
    site = here / "lib" / "site-packages"
    write_package(site)
    sys.path.append(str(site))
    found = factory_files("vitq_pack.model:build")
    assert set(found) == {
        *("vitq_pack", "vitq_pack.model", "vitq_pack.blocks", "vitq_pack.deep"),
        "vitq_pack.deep.layers",
    }
    assert factory_files("vitq_missing:build") == {}
