"""An accelerator's attention kernels as they are asked for: on a CPU, and refusing what the true ones refuse."""

import torch


class FakeKernels:
    """Stands for torch.ops.aten in the attention of devices other than a CPU."""

    def __init__(self):
        self.called = []

    def _scaled_dot_product_flash_attention(self, queries, keys, values):
        self.called.append("flash")
        assert queries.dtype in (torch.bfloat16, torch.float16), "the flash kernel takes half precision alone"
        return (*_attended(queries, keys, values, None), None, None)

    def _scaled_dot_product_efficient_attention(self, queries, keys, values, bias, compute_log_sumexp):
        self.called.append("efficient")
        if bias is not None:
            assert bias.shape == (*queries.shape[:3], keys.shape[2])
            assert bias.dtype == queries.dtype
            assert bias.stride(2) % 8 == 0, "a mask's rows are aligned"
        assert compute_log_sumexp
        output, lse = _attended(queries, keys, values, bias)
        room = -lse.shape[2] % 32
        return output, torch.nn.functional.pad(lse, (0, room), value=torch.inf), None, None


def _attended(queries, keys, values, bias):
    for tensor in (queries, keys, values):
        assert tensor.stride(3) == 1
    scores = queries.float() @ keys.float().transpose(2, 3) / queries.shape[3] ** 0.5
    if bias is not None:
        scores = scores + bias.float()
    weights = scores.softmax(dim=3).nan_to_num(0.0)
    return (weights @ values.float()).to(queries.dtype), scores.logsumexp(dim=3)


def use(monkeypatch):
    """Attend as on an accelerator from now on."""
    kernels = FakeKernels()
    monkeypatch.setattr("kvbench.backend.attention.ON_CPU", "nowhere")
    monkeypatch.setattr("kvbench.backend.attention.aten", kernels)
    return kernels
