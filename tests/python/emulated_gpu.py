"""An emulated GPU for the package: memory from the emulated CUDA runtime that the extension module carries, as CPU tensors.

Streams run by themselves, so whoever looks at a result asks for synchronize() first, as with a real one.
"""

import contextlib
import ctypes

import torch
import torch.distributed as dist

from gradwarden import _core, _device_path

_runtime = ctypes.CDLL(_core.__file__)


def _call(name, *arguments):
    result = getattr(_runtime, name)(*arguments)
    if result != 0:
        raise AssertionError(f"{name}: error {result}")


def synchronize():
    _call("cudaDeviceSynchronize")


def allocate(bytes_wanted):
    address = ctypes.c_void_p()
    _call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(max(1, bytes_wanted)))
    return address.value


def _view(address, count, dtype):
    room = (ctypes.c_char * max(1, count * dtype.itemsize)).from_address(address)
    return torch.frombuffer(room, dtype=dtype, count=count)


def on_gpu(tensor):
    """A copy in memory that kernels may read and write."""
    copy = _view(allocate(tensor.numel() * tensor.element_size()), tensor.numel(), tensor.dtype).view(tensor.shape)
    return copy.copy_(tensor)


class EmulatedGpu(_device_path.Hardware):
    def __init__(self):
        stream = ctypes.c_void_p()
        _call("cudaStreamCreate", ctypes.byref(stream))
        self._stream = stream.value

    def fits(self, device):
        return True

    def stream(self, device):
        return self._stream

    def current(self, device):
        return contextlib.nullcontext()

    def scalar(self, address, device):
        return _view(address, 1, torch.float32)[0]

    def zeros(self, count, device):
        return on_gpu(torch.zeros(count, dtype=torch.uint8))

    def exchange(self, device, size):
        group = dist.new_group(backend="gloo")
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

        def all_gather(send, receive, count, stream):
            synchronize()  # gloo knows no streams
            mine, all_of_them = _view(send, count, torch.uint8), _view(receive, count * size, torch.uint8)
            gather(all_of_them, mine, group=group)

        return 0, all_gather


def use():
    _device_path.hardware = EmulatedGpu()
