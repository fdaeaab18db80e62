"""Out of memory: what says so, and giving back what can be given back."""

import gc
import sys

_SIGNS = (
    "DefaultCPUAllocator",
    "not enough memory",
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it is MemoryError, torch's error for a GPU, or a RuntimeError of its CPU allocator or cuBLAS.

    torch is not imported for it, for the sake of those who do without it.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def free_memory() -> None:
    """Gives back what nothing refers to any more, the GPU's cached blocks too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
