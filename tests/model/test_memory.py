"""What loading and saving hold in memory, however many processes of a machine do it."""

import sys

import pytest
import torch
from helpers.mapped import own_memory
from helpers.runs import arguments
from safetensors.torch import load_file

from videomind.model.checkpoint import LoadSettings, load_model
from videomind.model.tensors import copy_to_cpu, read_tensors, save_tensors
from videomind.train.command_line.arguments import TrainingArguments, parse_arguments
from videomind.train.role_trainer import gather_state
from videomind.train.role_training import build_model

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
DTYPES = (torch.float32, torch.bfloat16)


@linux
@pytest.mark.parametrize("base", ["base", "untied"])
def test_weights_that_keep_their_type_are_the_files_pages(workshop, base):
    """Eight processes of a node share one copy of the base, and none of them reads it as a whole."""
    stored = {
        tensor.dtype
        for path in (workshop / base).glob("*.safetensors")
        for tensor in load_file(path).values()
    }
    for dtype in DTYPES:
        model = load_model(workshop / base, LoadSettings(dtype=dtype)).model
        own = own_memory(model.parameters(), workshop / base)
        size = sum(param.nbytes for param in model.parameters())
        assert own == (0 if {dtype} == stored else size)


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_tensor_goes_straight_to_the_device(workshop, dtype):
    """Also where its type changes: else every process would hold a whole copy first."""
    settings = LoadSettings(dtype=dtype, device=torch.device("meta"))
    model = load_model(workshop / "base", settings).model
    assert {param.device.type for param in model.parameters()} == {"meta"}
    assert {param.dtype for param in model.parameters()} == {dtype}
    assert not hasattr(model, "hf_device_map")


def test_training_loads_onto_its_device(workshop, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "device", torch.device("meta"))
    for role in ("planner", "grounder"):
        args = parse_arguments(arguments(workshop, tmp_path, "--role", role, "--bf16", "True"))
        params = list(build_model(args).model.parameters())
        assert {param.device.type for param in params} == {"meta"}
        assert {param.dtype for param in params if param.requires_grad} == {torch.float32}


def test_only_the_process_that_writes_copies(workshop, tmp_path):
    args = parse_arguments(arguments(workshop, tmp_path))
    model = build_model(args).model
    assert gather_state(model, dtype=torch.float32).keys() >= {
        name for name, param in model.named_parameters() if param.requires_grad
    }
    assert gather_state(model, dtype=torch.float32, should_keep=False) == {}
    assert copy_to_cpu(dict(model.named_parameters()), None, should_keep=False) == {}


WHOLE = torch.arange(12.0).view(3, 4)
FORMS = {
    "own": {"a": WHOLE.clone(), "b": WHOLE.clone()},
    "tied": {"a": WHOLE, "b": WHOLE},
    "a part": {"a": WHOLE[1:], "b": WHOLE[:1]},
    "turned": {"a": WHOLE.T, "b": WHOLE[:, 1]},
    "spread": {"a": WHOLE[:1].expand(3, 4), "b": torch.ones(())},
    "empty": {"a": torch.zeros(0, 4), "b": torch.zeros(0)},
    "parameter": {"a": torch.nn.Parameter(WHOLE.clone()), "b": WHOLE.clone().bfloat16()},
}


@pytest.mark.parametrize("form", FORMS)
def test_tensors_of_any_form_are_written(tmp_path, form):
    save_tensors(FORMS[form], tmp_path / "x.safetensors")
    found = read_tensors(tmp_path / "x.safetensors")
    assert found.keys() == FORMS[form].keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in FORMS[form].items())


def test_what_is_written_is_held_once(tmp_path, monkeypatch):
    written = {}
    monkeypatch.setattr(
        "videomind.model.tensors.save_file",
        lambda tensors, path, **_: (written.update(tensors), path.touch()),
    )
    save_tensors(FORMS["own"], tmp_path / "x.safetensors")
    assert all(written[name].data_ptr() == tensor.data_ptr() for name, tensor in FORMS["own"].items())
