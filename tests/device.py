"""A GPU for machines that have none: tensors in the memory of the CPU that say ``cuda:0`` and refuse what CUDA refuses.

    with emulated_device() as device:
        model.to("cuda:0")
        attack(model, batch.to("cuda:0"), seeds=seeds)
    device.waits  # where the host waited for the device, and how often

Refused: operations of tensors on both devices (a scalar of the CPU may enter an elementwise one), indices on the device into
tensors of the CPU, NumPy, generators of the other device, lengths of packed sequences on the device, operations without a CUDA
kernel, integers in foreach kernels, and gradients of RNNs in evaluation mode, which cuDNN does not know. Autocast follows CUDA's
lists, and a seed draws other numbers than on the CPU.

Not emulated: which kernel torch chooses, limits of kernels on types and sizes, the order of sums, memory, streams and ranks.
"""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.optim import swa_utils
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("cuda:0")
_ROOT = Path(__file__).parents[1]
# The size or the value of their results is known to the host only when all queued work is finished.
_WAITING = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "bincount"}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
# Copies go between the devices, the others take lengths or a number that lies on the host.
_EITHER_DEVICE = {"copy_", "fill_", "_pack_padded_sequence_backward", "_ctc_loss", "_ctc_loss_backward"}
_PACKING = {"_pack_padded_sequence", "_pad_packed_sequence"}
_KERNELS = ("CUDA", "CompositeExplicitAutograd", "CompositeImplicitAutograd", "CompositeExplicitAutogradNonFunctional")
_RNNS = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
# Of ATen's autocast_mode.h, what recognisers call.
_HALF = {
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "matmul",
    "__matmul__",
    "mm",
    "bmm",
    "addmm",
    "baddbmm",
    "linear",
    "prelu",
}
_HALF |= {"einsum", "scaled_dot_product_attention"}
_SINGLE = {
    "exp",
    "log",
    "log1p",
    "log_softmax",
    "softmax",
    "layer_norm",
    "group_norm",
    "norm",
    "pow",
    "rsqrt",
    "sum",
    "cumsum",
}


class Device(TorchFunctionMode):
    """Makes tensors on the device where a caller asks for them.

    Attributes:
        waits: (reason, line of the repository) -> how often the host waited for the device there. Copies wait too, unless they go
            to the device and are ``non_blocking``.
        doubles: line of the repository -> how many operations on the device gave float64, which a GPU computes slowly.
    """

    current: Device

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.doubles: Counter[str] = Counter()

    def wait(self, reason: str, times: int = 1) -> None:
        self.waits[reason, _place()] += times

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.to and not isinstance(args[0], DeviceTensor):
            return _moved(*args, **kwargs)
        if func is Tensor.pin_memory:
            return args[0]
        device = kwargs.get("device")
        if device is None or func is Tensor.to or torch.device(device).type != "cuda":
            if not any(isinstance(tensor, DeviceTensor) for tensor in args):
                _check_generator(kwargs, "cpu")
            return func(*args, **kwargs)
        like = bool(args) and isinstance(args[0], DeviceTensor)
        kwargs["device"] = None if like else torch.device("cpu")
        _check_generator(kwargs, "cuda")
        made = func(*args, **kwargs)
        if isinstance(made, DeviceTensor):
            return made
        if func in (torch.tensor, torch.as_tensor):
            self.wait("copy to the device")
        return DeviceTensor(made).requires_grad_(made.requires_grad)


class DeviceTensor(Tensor):
    """``host`` is the same memory as a tensor of the CPU."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> DeviceTensor:
        # CUDA's dispatch keys; the device that C++ sees stays the CPU, so that autograd needs no stream.
        tensor = Tensor._make_subclass(cls, host.detach(), False, dispatch_device=False, device_for_backend_keys=DEVICE)
        tensor.host = host.detach()
        return tensor

    def __repr__(self) -> str:
        return f"Device{self.host!r}"

    def __deepcopy__(self, memo: dict) -> Tensor:
        copied = DeviceTensor(self.host.clone())
        copied = nn.Parameter(copied, False) if isinstance(self, nn.Parameter) else copied
        return memo.setdefault(id(self), copied.requires_grad_(self.requires_grad))

    def __reduce_ex__(self, protocol: int) -> Any:
        return self.host.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _run(func, args, kwargs or {})

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if func in _ANSWERS and isinstance(args[0], DeviceTensor):
            return _ANSWERS[func](*args, **kwargs)
        if name in _RNNS:
            return _rnn(func, *args)
        if name == "ctc_loss":
            _ctc_waits(*args[1:4])
        _check_generator(kwargs, "cuda")
        with torch._C.DisableTorchFunctionSubclass(), _Inside(True):
            if torch.is_autocast_enabled("cuda") and name in _HALF | _SINGLE:
                kind = torch.get_autocast_dtype("cuda") if name in _HALF else torch.float32
                args, kwargs = tree_map_only(DeviceTensor, lambda tensor: _cast(tensor, kind), (args, kwargs))
            return func(*args, **kwargs)


class Generator(torch._C.Generator):
    """``torch.Generator`` of either device."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        generator = super().__new__(cls, "cpu")
        generator.place = torch.device(device)
        return generator

    @property
    def device(self) -> torch.device:
        return self.place

    def manual_seed(self, seed: int) -> Generator:
        return super().manual_seed(seed ^ 0x5DEECE66D if self.place.type == "cuda" else seed)


class _Inside(TorchDispatchMode):
    """Whether what C++ makes belongs to the device: zeros to pad with, or a gradient that nobody gave."""

    def __init__(self, on_device: bool) -> None:
        super().__init__()
        self.on_device = on_device

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        tensors = _tensors(args, kwargs or {})
        if any(isinstance(tensor, DeviceTensor) for tensor in tensors):
            return _run(func, args, kwargs or {})
        found = func(*args, **(kwargs or {}))
        return tree_map_only(Tensor, DeviceTensor, found) if self.on_device and not tensors else found


def _run(func: Any, args: tuple, kwargs: dict) -> Any:
    """One operation of ATen, on the memory underneath."""
    name = func._schema.name.removeprefix("aten::")
    _refuse(func, name, args, kwargs)
    _count_waits(name, args)
    hosts = tree_map_only(DeviceTensor, lambda tensor: tensor.host, (args, kwargs))
    found = func(*hosts[0], **hosts[1])
    if torch.Tag.inplace_view in func.tags:
        with no_dispatch():
            func(*args, **kwargs)
    if any(isinstance(leaf, Tensor) and leaf.dtype == torch.float64 for leaf in tree_leaves(found)):
        Device.current.doubles[_place()] += 1
    if name in _PACKING:
        return DeviceTensor(found[0]), found[1]
    if any(value.alias_info is not None and value.alias_info.is_write for value in func._schema.returns):
        return kwargs["out"] if "out" in kwargs else args[0]
    return tree_map_only(Tensor, DeviceTensor, found)


def _count_waits(name: str, args: tuple) -> None:
    device = Device.current
    if name in _WAITING:
        device.wait(name)
    elif name == "copy_" and not all(isinstance(tensor, DeviceTensor) for tensor in args[:2]):
        to_host = not isinstance(args[0], DeviceTensor)
        if not to_host and not args[1].dim():
            # A number that is written into a tensor, which C++ makes where the tensor is.
            return
        if to_host or not (len(args) > 2 and args[2]):
            device.wait("copy to the host" if to_host else "copy to the device")
    elif name in _INDEXING:
        for index in (index for index in args[1] if index is not None):
            if not isinstance(index, DeviceTensor):
                device.wait("copy to the device")
            if index.dtype == torch.bool:
                device.wait("boolean index")


def _refuse(func: Any, name: str, args: tuple, kwargs: dict) -> None:
    full = f"{func._schema.name}.{func._schema.overload_name}".removesuffix(".")
    if "_for_cpu" not in name and not any(
        torch._C._dispatch_has_kernel_for_dispatch_key(full, key) for key in _KERNELS
    ):
        raise NotImplementedError(f"Could not run '{full}' with arguments from the 'CUDA' backend")
    tensors = _tensors(args, kwargs)
    if name.startswith("_foreach_") and "div" in name and not all(tensor.is_floating_point() for tensor in args[0]):
        raise RuntimeError(f"{name}: result type Float can't be cast to the desired output type Long")
    foreign = [tensor for tensor in tensors if not isinstance(tensor, DeviceTensor)]
    if name in _INDEXING:
        if not isinstance(args[0], DeviceTensor):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        foreign = [value for value in args[2:3] if not isinstance(value, DeviceTensor) and value.dim()]
    elif name == "_pack_padded_sequence" and isinstance(args[1], DeviceTensor):
        raise RuntimeError("'lengths' argument should be a 1D CPU int64 tensor, but got 1D cuda:0 Long tensor")
    elif name in _PACKING or name in _EITHER_DEVICE:
        foreign = []
    elif torch.Tag.pointwise in func.tags:
        # A scalar of the CPU is read, but nothing is written into it.
        first = func._schema.arguments[0].alias_info
        written = args[0] if first is not None and first.is_write else None
        foreign = [tensor for tensor in foreign if tensor.dim() or tensor is written]
    if foreign:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in foreign)
        raise RuntimeError(f"{name}: Expected all tensors to be on the same device, found on the CPU {shapes}")


def _ctc_waits(*given: Tensor) -> None:
    """torch 2.11 copies the targets to the host twice and both lengths once; what lies there already costs no wait."""
    times = sum(num for num, tensor in zip((2, 1, 1), given, strict=True) if isinstance(tensor, DeviceTensor))
    Device.current.wait("ctc_loss", times)


class _CudnnRNN(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Callable[..., tuple], train: bool, *tensors: DeviceTensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        half = torch.is_autocast_enabled("cuda")
        hosts = [tensor.host.half().float() if half else tensor.host.clone() for tensor in tensors]
        ctx.given = [host.requires_grad_(want) for host, want in zip(hosts, ctx.needs_input_grad[2:], strict=True)]
        with torch.enable_grad(), _Inside(False):
            ctx.made = run(*ctx.given)
        ctx.train, ctx.kinds = train, [tensor.dtype for tensor in tensors]
        return tuple(DeviceTensor(value.half() if half else value) for value in ctx.made)

    @staticmethod
    def backward(ctx: Any, *gradients: DeviceTensor | None) -> tuple[Tensor | None, ...]:
        if not ctx.train:
            raise RuntimeError("cudnn RNN backward can only be called in training mode")
        known = [
            (made, grad.host.to(made.dtype)) for made, grad in zip(ctx.made, gradients, strict=True) if grad is not None
        ]
        wanted = [value for value in ctx.given if value.requires_grad]
        with _Inside(False):
            made, grads = zip(*known, strict=True)
            found = torch.autograd.grad(made, wanted, grads, allow_unused=True)
        by_input = dict(zip(map(id, wanted), found, strict=True))
        results = ((by_input.get(id(value)), kind) for value, kind in zip(ctx.given, ctx.kinds, strict=True))
        return None, None, *(None if value is None else DeviceTensor(value.to(kind)) for value, kind in results)


def _rnn(func: Any, data: Tensor, *others: Any) -> tuple[Tensor, ...]:
    """Arguments: data, state, weights, ...; of a packed sequence data, batch sizes, state, weights, ..."""
    packed = isinstance(others[2], list | tuple)
    sizes, (state, weights, *rest) = others[:packed], others[packed:]
    states = list(state) if isinstance(state, list | tuple) else [state]
    tensors = [data, *states, *weights]
    if not all(isinstance(tensor, DeviceTensor) for tensor in tensors) or any(
        isinstance(size, DeviceTensor) for size in sizes
    ):
        raise RuntimeError(
            "input, hidden state and weights of an RNN must be on cuda:0, the sizes of a packed batch on the CPU"
        )

    def run(data: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        hidden = more[: len(states)] if isinstance(state, list | tuple) else more[0]
        return func(data, *sizes, hidden, list(more[len(states) :]), *rest)

    with torch._C.DisableTorchFunctionSubclass():
        return _CudnnRNN.apply(run, rest[3], *tensors)


def _moved(tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
    """``Tensor.to``."""
    if args and isinstance(args[0], Tensor):
        args = (args[0].device, args[0].dtype, *args[1:])
    device, kind, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
    here = isinstance(tensor, DeviceTensor)
    there = here if device is None else device.type == "cuda"
    options = {"dtype": kind or tensor.dtype, **({} if layout is None else {"memory_format": layout})}
    with torch._C.DisableTorchFunctionSubclass():
        if here == there:
            return tensor.to(copy=copy, **options)
        if tensor.requires_grad and not tensor.is_leaf and torch.is_grad_enabled():
            raise NotImplementedError("a differentiable copy between the devices")
        moved = (tensor.host if here else tensor.detach()).to(copy=True, **options)
    if here or not non_blocking:
        Device.current.wait("copy to the host" if here else "copy to the device")
    return moved if here else DeviceTensor(moved)


def _cast(tensor: Tensor, kind: torch.dtype) -> Tensor:
    return tensor.to(kind) if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor


def _check_generator(kwargs: dict, wanted: str) -> None:
    generator = kwargs.get("generator")
    if generator is not None and generator.device.type != wanted:
        raise RuntimeError(f"Expected a '{wanted}' device type for generator but found '{generator.device.type}'")


def _tensors(args: tuple, kwargs: dict) -> list[Tensor]:
    return [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]


def _place() -> str:
    """The innermost line of the repository that is running, this module left out: ``robust_asr/losses.py:146``."""
    frame = sys._getframe()
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(_ROOT) and ".venv" not in path.parts and frame.f_code.co_filename != __file__:
            return f"{path.relative_to(_ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


def _with_torch_function(run: Callable[..., Any]) -> Callable[..., Any]:
    """``run`` where Python code that it calls, such as a checkpointed block, asks ``DeviceTensor`` again."""

    def running(*args: Any, **kwargs: Any) -> Any:
        with torch._C._EnableTorchFunction():
            return run(*args, **kwargs)

    return running


def _keeping_parameters(apply: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """A module that moves keeps its parameters, which an optimiser may have by then, and changes their class."""

    def applied(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        with mock.patch.object(torch.__future__, "_swap_module_params_on_conversion", True):
            return apply(module, *args, **kwargs)

    return applied


def _to_list(tensor: DeviceTensor) -> Any:
    Device.current.wait("tolist")
    return tensor.host.tolist()


def _no_numpy(*args: Any, **kwargs: Any) -> None:
    raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")


# What C++ would answer for the memory underneath.
_ANSWERS: dict[Any, Callable[..., Any]] = {
    Tensor.device.__get__: lambda tensor: DEVICE,
    Tensor.is_cuda.__get__: lambda tensor: True,
    Tensor.is_cpu.__get__: lambda tensor: False,
    Tensor.get_device: lambda tensor: 0,
    Tensor.data.__get__: lambda tensor: DeviceTensor(tensor.host),
    Tensor.to: _moved,
    Tensor.cpu: lambda tensor: _moved(tensor, "cpu"),
    Tensor.tolist: _to_list,
    Tensor.new_tensor: lambda tensor, data, **kwargs: _moved(tensor.host.new_tensor(data, **kwargs), DEVICE),
    Tensor.numpy: _no_numpy,
    Tensor.__array__: _no_numpy,
}


@contextmanager
def emulated_device() -> Iterator[Device]:
    """Inside, ``.to("cuda:0")`` works."""
    device = Device()
    # Modes import it when first used, and it does not like what is replaced below.
    importlib.import_module("torch._dynamo")
    with ExitStack() as stack:
        for place, name, value in (
            (Device, "current", device),
            (torch, "Generator", Generator),
            (nn.Module, "_apply", _keeping_parameters(nn.Module._apply)),
            (torch.autograd, "_engine_run_backward", _with_torch_function(torch.autograd._engine_run_backward)),
            (nn.RNNBase, "flatten_parameters", lambda module: None),
            # C++ groups by the device that it sees.
            (swa_utils, "_get_foreach_kernels_supported_devices", lambda: ["cuda", "cpu"]),
            (torch.cuda, "synchronize", lambda *args: device.wait("synchronize")),
            (torch.cuda, "is_bf16_supported", lambda *args: True),
            (torch.cuda, "get_rng_state", lambda *args: torch.get_rng_state()),
            (torch.cuda, "set_rng_state", lambda *args: None),
            (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        ):
            stack.enter_context(mock.patch.object(place, name, value, create=name == "current"))
        # Hooks of saved tensors see the device of C++ or ours, depending on who calls them.
        checks = torch.utils.checkpoint._allowed_determinism_checks_to_fns
        stack.enter_context(mock.patch.dict(checks, default=lambda tensor: (tensor.shape, tensor.dtype)))
        yield stack.enter_context(device)
