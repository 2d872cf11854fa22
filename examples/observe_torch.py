"""A PyTorch classifier whose predictions are reported one by one. Ends by itself.

pip install torch
OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 python examples/observe_torch.py
"""

import torch

import otel_mlmon

model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3), torch.nn.Softmax(dim=-1))
rows = torch.randn(100, 4)

otel_mlmon.instrument(models={"net": otel_mlmon.ModelOptions(labels=["ant", "bee", "cow"])})

with torch.inference_mode():
    for row in rows:
        features = {f"x{index}": value for index, value in enumerate(row.tolist())}
        with otel_mlmon.observe("net", version="1", runtime="torch", features=features) as prediction:
            prediction.scores = model(row)

print(f"{len(rows)} predictions, reported.")
