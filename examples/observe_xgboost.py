"""An XGBoost regression whose predictions are reported in batches. Ends by itself.

pip install xgboost scikit-learn
OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 python examples/observe_xgboost.py
"""

import xgboost
from sklearn.datasets import load_diabetes

import otel_mlmon

data = load_diabetes()
model = xgboost.XGBRegressor(n_estimators=20).fit(data.data, data.target)

otel_mlmon.instrument()

for rows in (data.data[:200], data.data[200:400]):
    features = dict(zip(data.feature_names, rows.T, strict=True))
    with otel_mlmon.observe("progression", version="1", runtime="xgboost", features=features) as prediction:
        prediction.value = model.predict(rows)

print("2 batches, reported.")
