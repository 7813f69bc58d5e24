"""Pretended accelerators on a CPU: what would fail on real ones, and what would make the host wait.

Values are computed on the CPU. Where a tensor's memory would lie is noted at its storage: when the tensor is
sent there (`.to`, `device=`), or is made of tensors that lie there. An operator that meets tensors of two
places raises as it does on CUDA. Waits and copies are counted, with the line that asks for them.

    with PretendedDevices() as devices:
        model.to("cuda")
        devices.clear()
        step()
    print(devices.table())
"""

import os
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import _allowed_determinism_checks_to_fns as CHECKS

from helpers.runs import REPO

HOST = torch.device("cpu")
FIRST = torch.device("cuda", 0)
WAIT, UPLOAD, PINNED_UPLOAD, BETWEEN = "wait", "blocking upload", "pinned upload", "copy between devices"

aten = torch.ops.aten
# The host needs a value, or the size of the result.
WAITING = {
    *(aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.is_nonzero),
    *(aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.bincount),
}
MOVING = {aten.copy_, aten._to_copy, aten.set_}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class DeviceMismatch(RuntimeError):
    """An operator met tensors of two places."""


class Event(NamedTuple):
    """What a line asked for.

    Attributes:
        kind: WAIT, UPLOAD, PINNED_UPLOAD or BETWEEN.
        what: the operator or the call.
        line: of the package, the innermost one.
        caller: the innermost line outside of torch.
    """

    kind: str
    what: str
    line: str
    caller: str


def place_of(tensor: Tensor) -> torch.device | None:
    """The device that a tensor would lie on; None: the host."""
    with torch._C.DisableTorchFunction():
        return getattr(tensor.untyped_storage(), "place", None)


def put(tensor: Tensor, place: torch.device | None) -> Tensor:
    with torch._C.DisableTorchFunction():
        tensor.untyped_storage().place = place
    return tensor


def is_pinned(tensor: Tensor) -> bool:
    with torch._C.DisableTorchFunction():
        return getattr(tensor.untyped_storage(), "is_pretended_pinned", False)


def pinned(tensor: Tensor) -> Tensor:
    with torch._C.DisableTorchFunction():
        copy = tensor.clone()
        copy.untyped_storage().is_pretended_pinned = True
    return copy


def device_named(value: Any) -> torch.device | None:
    """The accelerator that a device or its name means; None: the host."""
    device = torch.device(value)
    return None if device.type != "cuda" else torch.device("cuda", device.index or 0)


def tensors_in(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def place_among(tree: Any) -> torch.device | None:
    """The device of the first tensor that lies on one."""
    return next(filter(None, map(place_of, tensors_in(tree))), None)


class PretendedDevices:
    """CUDA devices that are pretended within a block.

    Args:
        count: of them.
        memory: bytes of each, all of them free.

    Attributes:
        events: how often each was seen.
        launches: operators that ran on a device.
        launched: the same, by operator.
    """

    def __init__(self, count: int = 1, *, memory: int = 2**34):
        self.count, self.memory = count, memory
        self.inner_place: torch.device | None = None  # of the arguments of the call that runs
        self.clear()

    def clear(self) -> None:
        """Forget what was seen."""
        self.events: Counter[Event] = Counter()
        self.launched: Counter[str] = Counter()

    @property
    def launches(self) -> int:
        return self.launched.total()

    def number(self, *kinds: str) -> int:
        """How many events of these kinds were seen."""
        return sum(count for event, count in self.events.items() if event.kind in kinds)

    def table(self) -> str:
        """What was seen, most frequent first."""
        return "\n".join(f"{count:5d}  " + "  ".join(event) for event, count in self.events.most_common())

    def note(self, kind: str, what: str) -> None:
        """Count an event at the present line."""
        frames = [f for f in traceback.extract_stack() if f.filename != __file__]
        own = next((f for f in reversed(frames) if f.filename.startswith(f"{REPO}/videomind/")), None)
        caller = next((f for f in reversed(frames) if "/torch/" not in f.filename), None)
        lines = (
            f"{f.filename.removeprefix(f'{REPO}/').rpartition('site-packages/')[2]}:{f.lineno}" if f else "-"
            for f in (own, caller)
        )
        self.events[Event(kind, what, *lines)] += 1

    def __enter__(self) -> "PretendedDevices":
        self._undo = ExitStack()
        for module, facts in self._facts().items():
            for name, value in facts.items():
                self._undo.enter_context(mock.patch.object(module, name, value))
        self._undo.enter_context(mock.patch.object(torch.autograd, "_engine_run_backward", self._backward()))
        self._undo.enter_context(
            mock.patch.object(torch.autocast, "__init__", _on_host(torch.autocast.__init__))
        )
        # Where a checkpoint looks at tensors, their devices are the CPU's.
        checks = {"default": lambda x: {"shape": x.shape, "dtype": x.dtype}}
        self._undo.enter_context(mock.patch.dict(CHECKS, checks))
        # What is pretended is so in this thread alone; weights are otherwise loaded by several.
        self._undo.enter_context(mock.patch.dict(os.environ, HF_DEACTIVATE_ASYNC_LOAD="1"))
        os.environ.pop("VIDEOMIND_DEVICE", None)  # it would say what the devices are
        self._undo.enter_context(_Calls(self))
        self._undo.enter_context(_Operators(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._undo.close()

    def _facts(self) -> dict[Any, dict[str, Any]]:
        """What torch says of its devices."""

        def nothing(*_: Any, **__: Any) -> None:
            return None

        cuda = dict.fromkeys(
            ("set_device", "synchronize", "empty_cache", "manual_seed", "manual_seed_all"), nothing
        )
        cuda |= {
            "is_available": lambda: True,
            "device_count": lambda: self.count,
            "current_device": lambda: 0,
            "get_device_capability": lambda *_: (9, 0),
            "is_bf16_supported": lambda *_, **__: True,
            "mem_get_info": lambda *_: (self.memory, self.memory),
            "max_memory_allocated": lambda *_: 0,
            "get_device_properties": lambda *_: SimpleNamespace(
                is_integrated=False, total_memory=self.memory
            ),
        }
        state = torch.zeros(16, dtype=torch.uint8)
        random = {"get_rng_state_all": lambda: [state] * self.count, "set_rng_state_all": nothing}
        random |= {"get_rng_state": lambda *_: state, "set_rng_state": nothing}
        accelerator = {
            "is_available": lambda: True,
            "current_accelerator": lambda *_, **__: torch.device("cuda"),
            "current_stream": lambda *_: SimpleNamespace(is_capturing=lambda: False),
            "current_device_index": lambda: 0,
        }
        return {torch.cuda: cuda, torch.cuda.random: random, torch.accelerator: accelerator}

    def _backward(self) -> Callable[..., Any]:
        """`backward` is a call, within which calls are not seen; what checkpoints run again has to be."""
        engine = torch.autograd._engine_run_backward

        def run(*args: Any, **kwargs: Any) -> Any:
            with _Calls(self):
                return engine(*args, **kwargs)

        return run


def _on_host(start: Callable[..., None]) -> Callable[..., None]:
    """Let autocast of a device be that of the host, where its operators run."""

    def begin(self: torch.autocast, device_type: str, *args: Any, **kwargs: Any) -> None:
        start(self, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    return begin


def _names_device(value: Any) -> bool:
    """Tell whether a value is a host's or an accelerator's device, or its name; `meta` is none of them."""
    return isinstance(value, str | torch.device) and str(value).partition(":")[0] in ("cuda", "cpu")


class _Calls(TorchFunctionMode):
    """Answers where tensors lie, and moves them: what operators of plain CPU tensors never see."""

    def __init__(self, devices: PretendedDevices):
        super().__init__()
        self.devices = devices
        self._answers: dict[Any, Callable[[Tensor, torch.device | None], Any]] = {
            Tensor.device.__get__: lambda tensor, place: place,
            Tensor.is_cuda.__get__: lambda tensor, place: True,
            Tensor.is_cpu.__get__: lambda tensor, place: False,
        }

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch._C._nn._parse_to, torch.device):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        tensor = args[0] if args and isinstance(args[0], Tensor) else None
        place = None if tensor is None else place_of(tensor)
        if place is not None:
            if func in self._answers:
                return self._answers[func](tensor, place)
            if name in ("numpy", "__array__"):
                raise DeviceMismatch(f"{name}() of a tensor on {place}")
            if name == "tolist":
                self.devices.note(WAIT, name)
        if tensor is not None and name in ("pin_memory", "is_pinned"):
            return (pinned if name == "pin_memory" else is_pinned)(tensor)
        if tensor is not None and name in ("to", "cpu", "cuda", "as_tensor"):
            return self._moved(name, func, tensor, args[1:], kwargs)
        return self._made(name, func, place, args, kwargs)

    def _moved(
        self, name: str, func: Callable, tensor: Tensor, args: tuple, kwargs: dict[str, Any]
    ) -> Tensor:
        """Carry out `to`, `cpu`, `cuda` or `as_tensor` of a tensor."""
        there, wanted = place_of(tensor), _target(name, tensor, args, kwargs)
        values = [HOST if _names_device(v) or (name == "to" and type(v) is int) else v for v in args]
        values = [v.dtype if isinstance(v, Tensor) else v for v in values]
        named = {key: HOST if _names_device(v) or key == "device" else v for key, v in kwargs.items()}
        if name in ("cpu", "cuda"):
            values, named = [HOST], {k: v for k, v in named.items() if k != "device"}
        if there == wanted:
            return torch.Tensor.to(tensor, *values, **named)
        moved = tensor.clone() if tensor.requires_grad else tensor.detach().clone()
        moved = torch.Tensor.to(moved, *values, **named)
        if there and wanted:
            self.devices.note(BETWEEN, name)
        elif wanted:
            is_async = is_pinned(tensor) and kwargs.get("non_blocking", False)
            self.devices.note(PINNED_UPLOAD if is_async else UPLOAD, name)
        else:
            self.devices.note(WAIT, name)
        return put(moved.detach() if isinstance(tensor, nn.Parameter) else moved, wanted)

    def _made(
        self, name: str, func: Callable, place: torch.device | None, args: tuple, kwargs: dict[str, Any]
    ) -> Any:
        """Carry out any other call; a device that it names is where its result lies."""
        if type(kwargs.get("device")) is int:
            kwargs["device"] = torch.device("cuda", kwargs["device"])
        named = [v for v in (*args, *kwargs.values()) if _names_device(v)]
        wanted = device_named(named[0]) if named else place if name == "new_tensor" else None
        if not named and wanted is None:
            # What a composed operator allocates lies where its arguments do.
            outer, self.devices.inner_place = self.devices.inner_place, place_among((args, kwargs))
            try:
                return func(*args, **kwargs)
            finally:
                self.devices.inner_place = outer
        args = tuple(HOST if _names_device(v) else v for v in args)
        made = func(*args, **{key: HOST if _names_device(v) else v for key, v in kwargs.items()})
        if not isinstance(made, Tensor):
            return made
        if wanted and name in ("tensor", "as_tensor", "new_tensor"):
            self.devices.note(UPLOAD, name)
            made = made.clone()
        return put(made, wanted)


def _target(name: str, tensor: Tensor, args: tuple, kwargs: dict[str, Any]) -> torch.device | None:
    """Where `to`, `cpu`, `cuda` or `as_tensor` moves a tensor."""
    if name == "cpu":
        return None
    if name == "cuda":
        return device_named(torch.device("cuda", args[0] if args else 0))
    for value in (*args, *kwargs.values()):
        if _names_device(value):
            return device_named(value)
        if type(value) is int:
            return torch.device("cuda", value)
        if isinstance(value, Tensor):
            return place_of(value)
    return place_of(tensor)


class _Operators(TorchDispatchMode):
    """Notes where results lie, counts what waits, refuses what mixes places."""

    def __init__(self, devices: PretendedDevices):
        super().__init__()
        self.devices = devices

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunction():
            return self._run(func, args, kwargs or {})

    def _run(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:  # under inference mode these come whole
                return func.decompose(*args, **kwargs)
        operator, given = func.overloadpacket, tensors_in((args, kwargs))
        on_device = [tensor for tensor in given if place_of(tensor)]
        if on_device:
            self._check(func, args, kwargs, given)
        result = func(*args, **kwargs)
        made = tensors_in(result)
        if on_device:
            self.devices.launched[str(operator)] += not func.is_view
            is_moved = operator in MOVING
            there = place_of(args[0]) if is_moved else _main_place(on_device)
            for tensor in made if there or not is_moved else ():
                put(tensor, there)
        elif not given and torch._C._current_autograd_node() is not None:
            for tensor in made:
                put(tensor, FIRST)
        elif not given or operator is aten.lift_fresh:
            for tensor in made:
                put(tensor, self.devices.inner_place)
        return result

    def _check(self, func: Any, args: tuple, kwargs: dict[str, Any], given: list[Tensor]) -> None:
        """Count what waits, and refuse tensors of two places."""
        operator, note = func.overloadpacket, self.devices.note
        main = _main_place([tensor for tensor in given if place_of(tensor)])
        others = [tensor for tensor in given if place_of(tensor) != main]
        if operator in WAITING or (operator is aten.repeat_interleave and kwargs.get("output_size") is None):
            note(WAIT, operator.__name__)
        if operator is aten.copy_ and others:
            into, source = (place_of(tensor) for tensor in args[:2])
            note(BETWEEN if into and source else UPLOAD if into else WAIT, "copy_")
            return
        if operator in MOVING:
            return
        if operator in INDEXING:
            index = [tensor for tensor in args[1] if tensor is not None]
            is_mask = any(tensor.dtype in (torch.bool, torch.uint8) for tensor in index)
            # A number put at a mask is a masked_fill.
            is_fill = operator is not aten.index and len(index) == 1 and args[2].dim() == 0
            if is_mask and not is_fill:
                note(WAIT, "index by a mask")
            for tensor in index if place_of(args[0]) else ():
                if place_of(tensor) is None:  # the only place from which an index is fetched
                    note(UPLOAD, "index on the host")
                    others = [other for other in others if other is not tensor]
        if strange := [tensor for tensor in others if tensor.dim() > 0]:
            shapes = ", ".join(f"{tuple(tensor.shape)} on {place_of(tensor) or HOST}" for tensor in strange)
            raise DeviceMismatch(f"{func} got tensors on {main}, and {shapes}")


def _main_place(tensors: list[Tensor]) -> torch.device | None:
    """Where an operator runs: where its first tensor of a dimension or more lies."""
    return place_of(next((tensor for tensor in tensors if tensor.dim() > 0), tensors[0]))
