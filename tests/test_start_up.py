"""What commands import: help needs nothing heavy, and scoring no torch. Modules are counted, not seconds.

Covers `start_up.py` and `model/settings.py`.
"""

import ast
import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.rooms import FILES, PACKAGE
from helpers.runs import REPO, environment

from videomind.cli import COMMANDS
from videomind.start_up import importing

# What takes long to import, or loads a lot.
HEAVY = {"accelerate", "av", "deepspeed", "flash_attn", "huggingface_hub", "peft", "torch",
         "torch_npu", "torchvision", "transformers"}  # fmt: skip
SLOW = HEAVY | {"pyarrow"}  # what a function may import when it is called
MOST_MODULES = 450  # that `--help` may load, Python's own and numpy's among them
# Runs a module's main, then prints its exit code and what is loaded; argv: the module, its arguments.
PROGRAM = """
import contextlib, importlib, io, json, sys
module, *argv = sys.argv[1:]
with contextlib.redirect_stdout(io.StringIO()):
    try:
        code = importlib.import_module(module).main(argv)
    except SystemExit as end:
        code = end.code
print(json.dumps([code, sorted(sys.modules)]))
"""


def loaded_by(module: str, *argv: str, **variables: str) -> set[str]:
    """Names of the modules that are loaded when a command has ended well."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, module, *argv],
        env=environment(**variables),
        cwd=REPO,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    code, names = json.loads(run.stdout.splitlines()[-1])
    assert not code, run.stderr
    return set(names)


def heavy_among(names: set[str], heavy: set[str] = HEAVY) -> set[str]:
    return {name.partition(".")[0] for name in names} & heavy


def test_the_list_of_commands_loads_nothing_but_itself():
    names = loaded_by("videomind.cli", "--help")
    assert not heavy_among(names) and "numpy" not in names


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_nothing_heavy(command):
    names = loaded_by("videomind.cli", command, "--help")
    assert COMMANDS[command][0] in names
    assert not heavy_among(names) and len(names) <= MOST_MODULES


@pytest.fixture(params=["nextgqa", "cgbench"])
def predictions(request, tmp_path) -> Path:
    """Predictions of two questions of a data set, one of them with several moments."""
    asked = {"source": request.param, "query": "q", "question": "q?", "options": ["x", "y"]}
    first = {"video_path": "a.mp4", "answer": "x", "ans": "A", "span": [[1, 4], [6, 7.5]]}
    second = {"video_path": "b.mp4", "answer": "y", "ans": "B", "span": [[2, 3]]}
    rows = [
        {**asked, **first, "pred": [[0.5, 3], [6, 8]], "conf": [0.9, 0.2], "response": "A"},
        {**asked, **second, "pred": [[2, 2.5]], "conf": [0.5], "response": "A"},
    ]
    path = tmp_path / "run" / "output.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_scoring_needs_no_torch(predictions):
    names = loaded_by("videomind.eval.evaluate", str(predictions))
    assert (predictions.parent / "metrics.json").is_file()
    assert not heavy_among(names)


def test_comparing_needs_no_torch(predictions):
    assert not heavy_among(loaded_by("videomind.eval.compare", f"one={predictions}", f"two={predictions}"))


def test_listing_data_sets_needs_no_torch(tmp_path):
    assert not heavy_among(loaded_by("videomind.dataset.commands", "list", "--data_root", str(tmp_path)))


def test_showing_a_launch_without_an_accelerator_needs_no_torch():
    names = loaded_by("videomind.runs.launch", "infer", "--show", VIDEOMIND_DEVICE="cpu")
    assert not heavy_among(names)


WITHOUT_TORCHVISION = """
import importlib.util, sys
from importlib.abc import MetaPathFinder
class Hidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torchvision":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torchvision" else find_spec(name, *rest)
import videomind.agent.predicting, videomind.train.role_training
from videomind.backbones.registry import load_processor
import torch
from videomind.synthetic import make_tiny_base
make_tiny_base(sys.argv[1])
processor = load_processor(sys.argv[1])
frames = torch.zeros(2, 3, 56, 28, dtype=torch.uint8)
patches, grid = processor.backbone.patches(processor, frames)
print(len(patches), grid.tolist())
"""


@pytest.mark.slow
def test_inference_and_training_need_no_torchvision(tmp_path):
    """transformers imports it where it is installed, and some 200 modules with it."""
    command = [sys.executable, "-c", WITHOUT_TORCHVISION, str(tmp_path / "base")]
    run = subprocess.run(command, env=environment(), cwd=REPO, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "8 [1, 4, 2]"


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imported(nodes: Iterator[ast.stmt]) -> set[str]:
    """Full names that import statements name: of a `from`, the module and what may be one below it."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def at_the_top(path: Path) -> set[str]:
    """What importing a file imports; what only type checkers read is not among it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return imported(node for node in tree.body if not is_type_checking(node))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def slow_modules(slow: set[str] = SLOW) -> set[str]:
    """Modules of the package that import something slow, by themselves or through others."""
    reached = {name: at_the_top(path) for name, path in MODULES.items()}
    found = {name for name, imports in reached.items() if heavy_among(imports, slow)}
    while more := {name for name, imports in reached.items() if imports & found} - found:
        found |= more
    return found


def lazily_imported(path: Path) -> Iterator[tuple[int, set[str]]]:
    """Line and names of every import within a function."""
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(function, ast.FunctionDef):
            yield from ((node.lineno, names) for node in ast.walk(function) if (names := imported([node])))


def test_functions_import_only_what_is_slow():
    """All else stands at the top of its file, where it is seen."""
    slow = slow_modules()
    wrong = [
        f"{name}:{line} {sorted(names)}"
        for name, path in MODULES.items()
        for line, names in lazily_imported(path)
        if not heavy_among(names, SLOW) and not names & slow
    ]
    assert wrong == []


def collected(tree: ast.AST) -> Iterator[tuple[int, set[str]]]:
    """Line and names of every import within a function that the garbage collector may run in."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.With) and ast.unparse(node.items[0].context_expr) == "importing()":
            continue
        if names := imported([node]):
            yield node.lineno, names
        yield from collected(node)


def test_commands_import_what_is_slow_without_the_collector():
    slow = slow_modules({"transformers", "peft"}) | {"torch.distributed.run"}
    commands = {module for module, _ in COMMANDS.values()} | {"videomind.runs.torchrun"}
    assert [
        f"{name}:{line}"
        for name in sorted(commands)
        for line, names in collected(tree_of(name))
        if names & slow
    ] == []


def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


FROZEN = """
import gc, sys
from videomind.agent.infer import main
runs = []
gc.callbacks.append(lambda phase, _: runs.append("torch" in sys.modules and "peft" not in sys.modules))
code = main(sys.argv[1:])
print(code, gc.isenabled(), gc.get_freeze_count() > 100_000, sum(runs))
"""


def test_a_command_comes_up_without_collections_and_leaves_them_on(tmp_path):
    """No collection runs between the imports of torch and of peft, and later ones skip what was imported."""
    argv = ["--video", str(tmp_path / "none.mp4"), "--query", "q", "--pred_path", str(tmp_path / "out")]
    command = [sys.executable, "-c", FROZEN, *argv, "--model_gnd_path", str(tmp_path / "nowhere")]
    run = subprocess.run(command, env=environment(), cwd=REPO, capture_output=True, text=True)
    assert run.stdout.split() == ["2", "True", "True", "0"], run.stdout + run.stderr


@pytest.fixture
def collector():
    """The collector as it was, with nothing left frozen by the test."""
    was = gc.isenabled()
    gc.enable()
    yield
    (gc.enable if was else gc.disable)()


def test_the_collector_comes_back_after_a_failed_import(collector):
    frozen = gc.get_freeze_count()
    with pytest.raises(ModuleNotFoundError), importing():
        assert not gc.isenabled()
        import no_such_module_of_videomind  # noqa: F401
    assert gc.isenabled() and gc.get_freeze_count() == frozen  # little was imported, so nothing stays


def test_the_collector_stays_off_where_it_was(collector):
    with importing():
        with importing():
            pass
        assert not gc.isenabled()  # until the outer one ends
    assert gc.isenabled()
    gc.disable()
    with importing():
        pass
    assert not gc.isenabled()
