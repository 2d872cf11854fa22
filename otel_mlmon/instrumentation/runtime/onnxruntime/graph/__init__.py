"""Reads the nodes of an ONNX model, and finds out how each of its outputs is computed."""
