"""Qwen3 (arXiv:2505.09388), dense: Llama with normalised query and key heads."""

from moe_serve.models.llama import Llama


class Qwen3(Llama):
    head_norm = True
