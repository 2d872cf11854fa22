"""Real models whose weights a package publishes, or scikit-learn learns in a second, exported to ONNX here."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from benchmarks.models.catalogue import (
    Answer,
    Array,
    Model,
    answer_for,
    open_session,
    quantise,
)

OPSET: Final = 17
SENTENCES: Final = (
    "The quick brown fox jumps over the lazy dog near the river bank.",
    "Der schnelle braune Fuchs springt über den faulen Hund am Flussufer.",
    "Le rapide renard brun saute par-dessus le chien paresseux de la rivière.",
    "El rápido zorro marrón salta sobre el perro perezoso junto al río.",
    "La rapida volpe marrone salta sopra il cane pigro vicino al fiume.",
    "De snelle bruine vos springt over de luie hond bij de rivier.",
    "Быстрая коричневая лиса прыгает через ленивую собаку у реки.",
    "素早い茶色の狐がのろまな犬を飛び越える。",
    "Szybki brązowy lis przeskakuje nad leniwym psem przy rzece.",
    "Den snabba bruna räven hoppar över den lata hunden vid floden.",
)


def language() -> Model:
    """py3langid: the language of a text; naive Bayes of 140 languages over counts of byte sequences."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier, visit_counts

    package = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    weights, bias = (np.asarray(table, dtype=np.float32) for table in (package.nb_ptc, package.nb_pc))
    feeds = []
    for sentence in SENTENCES:
        text = package._encode(sentence)
        counts = np.zeros((1, len(weights)), np.float32)
        for at, count in visit_counts(package.tk_nextmove, package._rowbase, package.tk_output, text).items():
            counts[0, at] = count
        feeds.append({"counts": counts, "scale": np.full((1, 1), 1 / math.sqrt(len(text)), np.float32)})
    own = [package.classify(sentence) for sentence in SENTENCES]
    names = list(package.nb_classes)

    def make(rows: Array) -> Answer:
        return Answer(
            truth=f"softmax of {rows.shape[1]} languages",
            kinds=frozenset({"probabilities"}),
            labels=[[str(names.index(label))] for label, _ in own],
            confidences=[confidence for _, confidence in own],
        )

    session = open_session(_naive_bayes(weights, bias))
    return Model(name="language", package="py3langid", session=session, feeds=feeds, read=answer_for(session, make))


def _naive_bayes(weights: Array, bias: Array) -> bytes:
    nodes = [
        helper.make_node("Add", ["counts", "one"], ["more"]),
        helper.make_node("Log", ["more"], ["damped"]),
        helper.make_node("MatMul", ["damped", "weights"], ["sums"]),
        helper.make_node("Add", ["sums", "bias"], ["scores"]),
        helper.make_node("Mul", ["scores", "scale"], ["tempered"]),
        helper.make_node("Softmax", ["tempered"], ["languages"], axis=1),
    ]
    tensors = {"one": np.ones(1, np.float32), "weights": weights, "bias": bias}
    graph = helper.make_graph(
        nodes,
        "language",
        [
            helper.make_tensor_value_info("counts", TensorProto.FLOAT, ["n", len(weights)]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, ["n", 1]),
        ],
        [helper.make_tensor_value_info("languages", TensorProto.FLOAT, ["n", len(bias)])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    exported: bytes = model.SerializeToString()
    return exported


def scikit_learn() -> list[Model]:
    """Classifiers, regressors, a multi-label network and a text embedding on scikit-learn's own data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [*_classifiers(), *_regressors(), _multi_label(), _embedding()]


def export_learner(model: Any, sample: Any, **options: Any) -> bytes:
    """Exports a learner of scikit-learn."""
    from skl2onnx import to_onnx

    exported: bytes = to_onnx(model, sample, target_opset=OPSET, **options).SerializeToString()
    return exported


def _rows(table: Array, count: int = 40) -> list[dict[str, Array]]:
    return [{"X": table[at : at + 1]} for at in range(count)]


def _classifiers() -> list[Model]:
    from sklearn.datasets import load_breast_cancer, load_digits, load_iris
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC

    random = np.random.default_rng(3)
    models = []
    candidates = [
        ("iris, logistic regression", load_iris(), LogisticRegression(max_iter=500), {}, False),
        ("cancer, random forest", load_breast_cancer(), RandomForestClassifier(40, random_state=0), {}, False),
        ("digits, network", load_digits(), MLPClassifier((32,), max_iter=60, random_state=0), {}, False),
        ("digits, network, int8", load_digits(), MLPClassifier((32,), max_iter=60, random_state=0), {}, True),
        ("digits, logistic regression, raw scores", load_digits(), LogisticRegression(max_iter=60),
         {"raw_scores": True}, False),
        ("digits, support vectors", load_digits(), SVC(random_state=0), {}, False),
    ]  # fmt: skip
    for name, data, learner, options, is_int8 in candidates:
        order = random.permutation(len(data.data))
        table = data.data[order].astype(np.float32) / max(1.0, float(np.abs(data.data).max()))
        learner.fit(table, data.target[order])
        exported = export_learner(learner, table[:1], options={"zipmap": False, **options})
        if is_int8:
            exported = quantise(exported, _rows(table, 200))
        session = open_session(exported)
        models.append(
            Model(
                name=name,
                package="scikit-learn",
                session=session,
                feeds=_rows(table),
                read=functools.partial(read_classifier, session, learner, table[:40], is_int8=is_int8),
            )
        )
    return models


def read_classifier(
    session: ort.InferenceSession, learner: Any, table: Array, outputs: Sequence[Sequence[Any]], *, is_int8: bool
) -> dict[str, Answer]:
    """Reads the label, and the scores beside it; of 8 bits by the raw outputs, which are not those of the learner."""
    label, scores = (output.name for output in session.get_outputs())
    raw = np.concatenate([_table_of(call[1]) for call in outputs]).astype(np.float64)
    labels = [str(call[0][0]) for call in outputs] if is_int8 else [str(value) for value in learner.predict(table)]
    is_normalised = np.abs(raw.sum(axis=1) - 1).max() < 1e-2 and raw.min() >= 0
    if not is_normalised:
        words = "raw scores beside the label"
        return {
            label: Answer(truth="label", kinds=frozenset({"labels"}), labels=[[text] for text in labels]),
            scores: Answer(truth=words, kinds=frozenset()),
        }
    own = raw if is_int8 else learner.predict_proba(table)
    return {
        label: Answer(truth="label", kinds=frozenset({"labels"}), labels=[[text] for text in labels]),
        scores: Answer(
            truth=f"probabilities of {own.shape[1]} classes",
            kinds=frozenset({"probabilities"}),
            labels=[[text] for text in labels],
            confidences=own.max(axis=1).tolist(),
        ),
    }


def _table_of(scores: Any) -> Array:
    """Returns scores as a table, also where they are a dictionary a row."""
    rows = [list(row.values()) for row in scores] if isinstance(scores, list) else scores
    return np.asarray(rows)


def _regressors() -> list[Model]:
    from sklearn.datasets import load_diabetes
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.linear_model import Ridge

    data = load_diabetes()
    table = data.data.astype(np.float32)
    models = []
    for name, learner in (
        ("diabetes, ridge", Ridge()),
        ("diabetes, boosting", GradientBoostingRegressor(random_state=0)),
    ):
        learner.fit(table, data.target)
        session = open_session(export_learner(learner, table[:1]))
        output = session.get_outputs()[0].name
        values = learner.predict(table[:40]).tolist()
        answer = Answer(truth="one value", kinds=frozenset({"regression"}), values=values)
        models.append(
            Model(
                name=name,
                package="scikit-learn",
                session=session,
                feeds=_rows(table),
                read=functools.partial(return_answer, {output: answer}),
            )
        )
    return models


def return_answer(answers: dict[str, Answer], _: Sequence[Sequence[Any]]) -> dict[str, Answer]:
    """Returns what the learner says of the same inputs, whatever the outputs are."""
    return answers


def _multi_label() -> Model:
    from sklearn.datasets import make_multilabel_classification
    from sklearn.neural_network import MLPClassifier

    table, labels = make_multilabel_classification(n_samples=400, n_classes=5, random_state=0)
    table = table.astype(np.float32)
    learner = MLPClassifier((32,), max_iter=100, random_state=0).fit(table, labels)
    session = open_session(export_learner(learner, table[:1], options={"zipmap": False}))
    probabilities = learner.predict_proba(table[:40])

    def read(_: Sequence[Sequence[Any]]) -> dict[str, Answer]:
        label, scores = (output.name for output in session.get_outputs())
        return {
            label: Answer(truth="five flags a sample", kinds=frozenset()),
            scores: Answer(
                truth="probabilities of 5 independent labels",
                kinds=frozenset({"multi_label"}),
                labels=[[str(at) for at in np.flatnonzero(row > 0.5)] for row in probabilities],
                confidences=np.maximum(probabilities, 1 - probabilities).mean(axis=1).tolist(),
            ),
        }

    return Model(name="labels, network", package="scikit-learn", session=session, feeds=_rows(table), read=read)


def _embedding() -> Model:
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    texts = [load().DESCR for load in (load_breast_cancer, load_diabetes, load_iris, load_wine)]
    lines = [line.strip() for text in texts for line in text.splitlines() if len(line.split()) > 5]
    # onnxruntime's own reading of words needs a locale of the machine: it gets their weights.
    table = TfidfVectorizer().fit_transform(lines).toarray().astype(np.float32)
    learner = make_pipeline(TruncatedSVD(24, random_state=0), Normalizer()).fit(table)
    session = open_session(export_learner(learner, table[:1]))
    norms = np.linalg.norm(learner.transform(table[:40]), axis=1).tolist()
    return Model(
        name="text embedding (LSA)",
        package="scikit-learn",
        session=session,
        feeds=_rows(table),
        read=answer_for(
            session,
            lambda _: Answer(truth="embedding of 24 numbers, length 1", kinds=frozenset({"embedding"}), values=norms),
        ),
    )
