"""Where tests marked `gpu` run: on the GPU, or, to rehearse their lines, on the CPU."""

import os

import pytest

DEVICE = os.environ.get("KVBENCH_GPU_DEVICE", "cuda")
on_cuda = pytest.mark.skipif(DEVICE != "cuda", reason="a CPU has no caching allocator, and pins nothing")
