"""Random numbers that depend on nothing but a seed and a name."""

import hashlib

import torch


def named_generator(name: str, seed: int) -> torch.Generator:
    """A generator of its own for what has a name: the same in any batch, on any machine and after any stop."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    # Torch takes 64 bits, of which the first would be a sign.
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
