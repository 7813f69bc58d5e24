"""Which files a module is made of."""

import shutil

import pytest

from videomind import imports
from videomind.dataset import base, cache, own_data, table
from videomind.imports import imported_names, reached_files


@pytest.fixture
def package(tmp_path):
    """A package of five modules, one of which nothing reaches."""
    files = {
        "__init__.py": "from videomind.unused import x\n",
        "a.py": "from videomind.room.b import thing\nimport os\n",
        "room/__init__.py": "",
        "room/b.py": "def thing():\n    from videomind.room import c\n",
        "room/c.py": "import videomind.a\n",
        "unused.py": "",
    }
    root = tmp_path / "videomind"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def names(package, *starts):
    return [
        path.relative_to(package).as_posix()
        for path in reached_files([package / start for start in starts], package)
    ]


def test_imports_are_followed_also_in_functions_and_circles(package):
    assert names(package, "a.py") == ["a.py", "room/__init__.py", "room/b.py", "room/c.py"]
    assert names(package, "unused.py") == ["unused.py"]


def test_a_package_counts_as_its_init(package):
    (package / "a.py").write_text("import videomind.room\n")
    assert names(package, "a.py") == ["a.py", "room/__init__.py"]


def test_a_file_from_outside_is_part_of_it(package, tmp_path):
    own = tmp_path / "own.py"
    own.write_text("from videomind.room.c import x\n")
    assert own in reached_files([own], package)
    assert package / "a.py" in reached_files([own], package)


def test_names_of_other_packages_do_not_count(package):
    (package / "a.py").write_text("import videomindful.x, json\nfrom videomind_x import y\n")
    assert imported_names(package / "a.py") == ()


@pytest.mark.parametrize("source", [base, own_data])
def test_annotations_are_made_of_what_the_cache_names(source, tmp_path):
    """Whatever a source reaches is in it: the schema, the table, the filters, spans, roles and files."""
    root = tmp_path / "videomind"
    shutil.copytree(imports.Path(imports.__file__).parent, root)
    starts = [root / imports.Path(module.__file__).relative_to(imports.Path(imports.__file__).parent)
              for module in (source, cache, table)]  # fmt: skip
    reached = {path.name for path in reached_files(starts, root)}
    assert {"schema.py", "filters.py", "files.py", "roles.py", "views.py", "phrases.py"} <= reached
    assert not {"train.py", "cli.py", "pipeline.py"} & reached
