"""What tables and pictures call the ways to train that the benchmarks of memory know."""

LABELS = {
    "end_to_end": "end-to-end",
    "end_to_end_remat": "end-to-end, remat",
    "end_to_end_accumulate_4": "end-to-end, accumulation over 4",
    "end_to_end_accumulate_8": "end-to-end, accumulation over 8",
    "torch_end_to_end": "PyTorch, end-to-end",
    "torch_checkpoint": "PyTorch, end-to-end, checkpoints",
    "torch_accumulate_4": "PyTorch, accumulation over 4",
    "vangl_k2_memory": "VanGL, K = 2",
    "trgl_k2_memory": "TRGL, K = 2",
    "vangl_k4_even": "VanGL, K = 4, equal depth",
    "vangl_k4_memory": "VanGL, K = 4",
    "trgl_k4_even": "TRGL, K = 4, equal depth",
    "trgl_k4_memory": "TRGL, K = 4",
    "trgl_k4_memory_remat": "TRGL, K = 4, remat",
    "trgl_k4_memory_accumulate_4": "TRGL, K = 4, 4 parts",
    "trgl_k8_memory": "TRGL, K = 8",
    "vangl_k16_memory": "VanGL, K = 16",
    "trgl_k16_even": "TRGL, K = 16, equal depth",
    "trgl_k16_memory": "TRGL, K = 16",
    "trgl_k16_memory_remat": "TRGL, K = 16, remat",
    "trgl_k16_memory_accumulate_4": "TRGL, K = 16, 4 parts",
}

IN_TABLES = ("vangl_k2_memory", "trgl_k2_memory", "trgl_k8_memory", "vangl_k16_memory")
"""What pictures leave to tables."""
