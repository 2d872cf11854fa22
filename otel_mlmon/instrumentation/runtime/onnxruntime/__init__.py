"""Instruments onnxruntime: patches the methods of its sessions, and copies every inference call."""
