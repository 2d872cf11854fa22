"""Reads the nodes of an ONNX model, and finds the operator that makes each of its outputs."""
