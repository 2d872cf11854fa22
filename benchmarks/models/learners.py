"""Models of LightGBM and XGBoost, and further ones of scikit-learn, learned here in a second and exported to ONNX."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.models.catalogue import Answer, Array, Model, open_session
from benchmarks.models.exported import export_learner, read_classifier, return_answer

CALLS = 40


def boosted() -> list[Model]:
    """Classifiers and regressors of LightGBM and XGBoost, as onnxmltools exports them."""
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

    lightgbm, xgboost = importlib.import_module("lightgbm"), importlib.import_module("xgboost")
    convert = importlib.import_module("onnxmltools.convert")
    options = {"n_estimators": 10, "random_state": 0}
    candidates = [
        ("iris", "LightGBM", load_iris(), lightgbm.LGBMClassifier(verbose=-1, **options), {"zipmap": False}),
        ("iris, dictionaries", "LightGBM", load_iris(), lightgbm.LGBMClassifier(verbose=-1, **options), {}),
        ("cancer", "LightGBM", load_breast_cancer(), lightgbm.LGBMClassifier(verbose=-1, **options), {"zipmap": False}),
        ("diabetes", "LightGBM", load_diabetes(), lightgbm.LGBMRegressor(verbose=-1, **options), {}),
        ("iris", "XGBoost", load_iris(), xgboost.XGBClassifier(**options), {}),
        ("cancer", "XGBoost", load_breast_cancer(), xgboost.XGBClassifier(**options), {}),
        ("diabetes", "XGBoost", load_diabetes(), xgboost.XGBRegressor(**options), {}),
    ]
    models = []
    for name, package, data, learner, forms in candidates:
        order = np.random.default_rng(3).permutation(len(data.data))
        table, target = data.data[order].astype(np.float32), data.target[order]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            learner.fit(table, target)
            to_onnx = convert.convert_lightgbm if package == "LightGBM" else convert.convert_xgboost
            kind = importlib.import_module("onnxmltools.convert.common.data_types").FloatTensorType
            types = [("X", kind([None, table.shape[1]]))]
            exported = to_onnx(learner, initial_types=types, target_opset=15, **forms).SerializeToString()
        models.append(_model(name, package, exported, learner, table))
    return models


def unlabelled() -> list[Model]:
    """Detectors of outliers, clusters, a calibrated margin, and Gaussian processes, of scikit-learn."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.cluster import KMeans
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.neighbors import LocalOutlierFactor
    from sklearn.svm import LinearSVC, OneClassSVM

    iris, cancer, diabetes = load_iris(), load_breast_cancer().data, load_diabetes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        learners: Sequence[tuple[str, Any, Array, Array | None, dict[str, Any]]] = [
            ("iris, calibrated margins", CalibratedClassifierCV(LinearSVC(), cv=3), iris.data, iris.target,
             {"zipmap": False}),
            ("cancer, outliers by neighbours", LocalOutlierFactor(novelty=True), cancer, None, {}),
            ("cancer, outliers by support vectors", OneClassSVM(), cancer, None, {}),
            ("iris, clusters", KMeans(3, n_init=1, random_state=0), iris.data, None, {}),
            ("diabetes, Gaussian process", GaussianProcessRegressor(alpha=1.0), diabetes.data, diabetes.target, {}),
        ]  # fmt: skip
        models = []
        for name, learner, data, target, options in learners:
            order = np.random.default_rng(3).permutation(len(data))[:200]
            table = data[order].astype(np.float32)
            learner.fit(table, *([] if target is None else [target[order]]))
            exported = export_learner(learner, table[:1], **({"options": options} if options else {}))
            models.append(_model(name, "scikit-learn", exported, learner, table))
    return models


def _model(name: str, package: str, exported: bytes, learner: Any, table: Array) -> Model:
    session = open_session(exported)
    outputs = [output.name for output in session.get_outputs()]
    sample = table[:CALLS]
    predicted = np.asarray(learner.predict(sample))
    source = session.get_inputs()[0].name
    feeds = [{source: table[at : at + 1]} for at in range(CALLS)]
    if hasattr(learner, "predict_proba"):
        read = functools.partial(read_classifier, session, learner, sample, is_int8=False)
        return Model(name=name, package=package, session=session, feeds=feeds, read=read)
    if len(outputs) == 1:
        values = predicted.ravel().tolist()
        answers = {outputs[0]: Answer(truth="one value", kinds=frozenset({"regression"}), values=values)}
    else:
        labels = [[str(int(value))] for value in predicted]
        is_distance = session.get_outputs()[1].shape[-1] == 1 and hasattr(learner, "support_vectors_")
        distances = learner.decision_function(sample).tolist() if is_distance else []
        answers = {
            outputs[0]: Answer(truth="label", kinds=frozenset({"labels"}), labels=labels),
            outputs[1]: Answer(
                truth="distances or scores beside the label", kinds=frozenset({"regression"}), values=distances
            ),
        }
    read_answer = functools.partial(return_answer, answers)
    return Model(name=name, package=package, session=session, feeds=feeds, read=read_answer)
