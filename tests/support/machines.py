"""Machines of round figures, whose prices can be computed by hand."""

from kvbench.model.geometry import KVGeometry
from kvbench.model.hardware import Hardware
from kvbench.model.parameters import ModelParameters
from kvbench.timing.work import work_of_parameters

# Two layers, two heads on one KV head of 8, float16: a slot is 2 · 2 · 1 · 8 · 2 = 64 bytes.
GEOMETRY = KVGeometry.uniform(num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8, dtype="float16", name="Tiny")
# Four layers, three of which look at the last 8 tokens.
WINDOWED = KVGeometry.uniform(
    num_layers=4,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    dtype="float16",
    name="Windowed",
    num_window_layers=3,
    window_tokens=8,
)
# 1,000 parameters of 2 bytes.
WEIGHTS = ModelParameters(num_parameters=1_000, num_active_parameters=1_000, hidden_size=16, bytes_per_parameter=2)
WORK = work_of_parameters(GEOMETRY, WEIGHTS)


def machine(**changed):
    """64 GB/s: a slot takes 1 ns (1,000 ps) to read or write, the weights 31.25 ns; 128 GFLOP/s: a query with a key
    (4 · 2 · 8 · 2 = 128 operations) takes 1 ns, a token's 2,000 operations 15.625 ns; the link 6.4 GB/s: a slot 10 ns.
    """
    figures = {
        "name": "Round",
        "memory_bytes": 1_000_000,
        "memory_bytes_per_s": 64e9,
        "flops_per_s": 128e9,
        "host_bytes_per_s": 6.4e9,
        "disk_bytes_per_s": 3.2e9,
        "memory_efficiency": 1.0,
        "compute_efficiency": 1.0,
        "host_efficiency": 1.0,
        "launch_s": 1e-9,
        "allocation_s": 9e-9,
        "device_allocation_s": 1e-6,
        "transfer_s": 5e-9,
        "step_s": 100e-9,
        "source": "round figures",
        "curves": None,
        "calibrated_for": None,
        "validation": None,
    }
    return Hardware(**figures | changed)
