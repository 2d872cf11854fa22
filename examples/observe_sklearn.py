"""A scikit-learn classifier whose predictions are reported one by one. Ends by itself.

OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 python examples/observe_sklearn.py
"""

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import otel_mlmon

iris = load_iris()
model = LogisticRegression(max_iter=1000).fit(iris.data, iris.target_names[iris.target])

otel_mlmon.instrument(models={"iris": otel_mlmon.ModelOptions(labels=model.classes_.tolist())})

for row in iris.data:
    features = dict(zip(iris.feature_names, row.tolist(), strict=True))
    with otel_mlmon.observe("iris", version="1", runtime="sklearn", features=features) as prediction:
        prediction.scores = model.predict_proba([row])

print(f"{len(iris.data)} predictions, reported.")
