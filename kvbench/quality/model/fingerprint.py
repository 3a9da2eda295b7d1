"""A model's weights, told from others."""

import hashlib

import torch
from torch import nn

MOST_ELEMENTS = 1024


def weights_fingerprint(model: nn.Module) -> str:
    """Of a model's weights: names, shapes, dtypes, and up to 1,024 elements of each tensor, evenly spread.

    Two models of which one was trained further differ in every tensor that was trained, and so here.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().flatten()
        chosen = flat[:: max(flat.numel() // MOST_ELEMENTS, 1)][:MOST_ELEMENTS]
        digest.update(chosen.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
