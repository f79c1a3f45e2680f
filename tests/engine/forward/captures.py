"""What a CUDA graph does to a step, on any processor: operators are recorded once and replayed on the same memory, so
that a branch or a number that Python chose while recording is baked in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# They read a number on the host, or bring one from there: a capture does not survive them.
FORBIDDEN = ("_local_scalar_dense", "nonzero", "lift_fresh", "masked_select", "is_nonzero", "equal")


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class _Recording(TorchDispatchMode):
    def __init__(self, note: Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None]) -> None:
        super().__init__()
        self._note = note

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in FORBIDDEN:
            raise RuntimeError(f"{func} breaks a capture")
        result = func(*args, **(kwargs or {}))
        self._note(func, args, kwargs or {}, result)
        return result


class Operators(TorchDispatchMode):
    """Notes the names of all operators within it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class Tape:
    """A `GraphCapture` that replays the operators it has recorded."""

    def __init__(self) -> None:
        self.made = 0
        self.operators: list[int] = []  # of each recording

    def __call__(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.made += 1
        calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        compute()  # what is made on first use
        with _Recording(lambda *call: calls.append(call)):
            result = compute()
        self.operators.append(len(calls))

        def replay() -> Tensor:
            for func, args, kwargs, before in calls:
                for old, new in zip(tensors(before), tensors(func(*args, **kwargs)), strict=True):
                    if old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                        old.copy_(new)
            return result

        return replay


class InputLiveness:
    """A `GraphCapture` that keeps of a recording what a CUDA graph keeps: nothing of what it reads."""

    def __init__(self) -> None:
        self.inputs: list[StorageWeakRef] = []

    def __call__(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        made: list[Tensor] = []  # by the recording itself, in memory of its own

        def note(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
            own = {tensor.untyped_storage().data_ptr() for tensor in made}
            for tensor in tensors((args, kwargs)):
                if tensor.numel() and tensor.untyped_storage().data_ptr() not in own:
                    self.inputs.append(StorageWeakRef(tensor.untyped_storage()))
            known = {tensor.untyped_storage().data_ptr() for tensor in tensors((args, kwargs))}
            made.extend(tensor for tensor in tensors(result) if tensor.untyped_storage().data_ptr() not in known)

        with _Recording(note):
            result = compute()
        return lambda: result
