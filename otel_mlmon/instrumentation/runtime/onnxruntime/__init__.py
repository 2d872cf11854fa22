"""The runtime onnxruntime: patches the methods of its sessions, and copies every call."""
