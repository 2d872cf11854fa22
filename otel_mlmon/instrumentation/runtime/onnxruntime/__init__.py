"""The runtime onnxruntime: its sessions' methods patched, and every call copied."""
