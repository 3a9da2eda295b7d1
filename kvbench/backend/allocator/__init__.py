"""A model of torch's CUDA caching allocator: what it holds in reserve for what a program allocates, and how often it
must ask the driver.

Source: PyTorch, c10/cuda/CUDACachingAllocator.cpp of the 2.6 and 2.11 lines (equal in all that is modelled);
    c10/core/AllocatorConfig.h and torch.cuda.memory_stats of 2.13; docs/source/notes/cuda.rst, "Optimizing memory
    usage".
"""

from kvbench.backend.allocator.allocator import CachingAllocator

__all__ = ["CachingAllocator"]
