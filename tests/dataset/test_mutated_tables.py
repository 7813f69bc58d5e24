"""Entries of another shape in tables that rows look things up in: the error names the table, not the rows.

Each entry that a row of the golden files needs is broken in many ways, as rows are in `test_mutated_rows.py`.
"""

import pytest
from dataset.test_mutated_rows import OTHERS, mutations

from videomind.dataset.base import get_source, source_names
from videomind.dataset.filters import Report
from videomind.files import FileError

CASES = [
    (name, split, table)
    for name in source_names()
    for source in [get_source(name)]
    for split in source.splits
    for table in (*source.duration_files, *source.extra_files)
]
LARGE = (2**70, 10**400)


class Noting(dict):
    """A mapping that notes which of its keys were found."""

    def __init__(self, *values):
        super().__init__(*values)
        self.found = set()

    def __getitem__(self, key):
        self.found.add(key)
        return super().__getitem__(key)


def read(source, split: str) -> str | None:
    """The error that reading a split is, or None."""
    try:
        for anno in source.read(split, Report()):
            anno.to_dict()
    except FileError as error:
        return str(error)
    return None


@pytest.mark.golden
@pytest.mark.parametrize(("name", "split", "table"), CASES, ids=map("@".join, CASES))
def test_what_is_wrong_with_an_entry_is_said_of_its_file(golden, monkeypatch, name, split, table):
    monkeypatch.chdir(golden.root / "datasets")
    source = get_source(name)
    if not all(path.is_file() for path in source.annotation_files(split)):
        pytest.skip(f"no golden rows of {name}@{split}")
    whole = Noting(source.mapping(table, "anything"))
    source._mappings[table] = whole
    assert read(source, split) is None
    seen, refused = 0, 0
    for key in sorted(whole.found)[:2]:
        broken = [mutation.row for mutation in mutations(whole[key])]
        for entry in (*broken, *LARGE, *OTHERS):
            source._mappings[table] = {**whole, key: entry}
            seen += 1
            if said := read(source, split):
                refused += 1
                assert str(source.data_root / table) in said and repr(key) in said, (entry, said)
    assert refused or not seen
