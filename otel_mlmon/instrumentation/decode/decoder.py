"""Decodes batches of inference calls into predictions: labels, confidences, values and features."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np

from otel_mlmon.instrumentation.decode.batch import (
    CallBatch,
    Items,
    SampleSizes,
    compute_batch_sizes,
    split_copies_by_call,
)
from otel_mlmon.instrumentation.decode.custom_outputs import OutputFunction, decode_with_function
from otel_mlmon.instrumentation.decode.features import FeatureProfiler
from otel_mlmon.instrumentation.decode.findings import ModelFindings
from otel_mlmon.instrumentation.decode.model_identity import (
    ModelIdentity,
    find_model_name,
    identify_model,
    read_class_names,
    read_reference_vocabulary,
)
from otel_mlmon.instrumentation.decode.output_kind import KindDecision
from otel_mlmon.instrumentation.decode.output_reports import BY_FUNCTION, make_output_report
from otel_mlmon.instrumentation.decode.outputs import TIMED_ONLY, DecodedOutputs, OutputDecoder
from otel_mlmon.instrumentation.decode.predictions import CallSummary, ClassificationHead, Predictions
from otel_mlmon.instrumentation.decode.single_call import SingleCallReader
from otel_mlmon.instrumentation.runtime.call import Plan, Side
from otel_mlmon.options import suggest_name
from otel_mlmon.types import OutputKind
from otel_mlmon.vocabulary import ModelVocabularies, TextBuckets, TextPseudonymizer

MAX_LISTED: Final = 8
"""Outputs that a warning lists at most."""

MAX_DECODERS: Final = 1024
"""The largest number of plans whose decoders are cached; beyond it the oldest is evicted."""


class DeclaredModelOptions(Protocol):
    """The Protocol of the options that the developer has declared for a model; empty or None where there are none."""

    @property
    def version(self) -> str:
        """The version of the model that the developer has declared."""

    @property
    def output_kind(self) -> OutputKind | Mapping[str, OutputKind] | OutputFunction | None:
        """The declared kind of the model's outputs, one for all or by output, or a function that decodes them."""

    @property
    def labels(self) -> Sequence[str]:
        """The declared names of the model's classes."""

    @property
    def features(self) -> Sequence[str]:
        """The declared names of the columns of the model's inputs."""

    @property
    def categories(self) -> Mapping[str, Sequence[str]]:
        """The declared categories by feature, which may be exported as plain text."""

    @property
    def keep_text(self) -> Sequence[str]:
        """The features whose texts the developer allows to be exported as they are."""

    @property
    def text(self) -> str | None:
        """How undeclared texts of the model are exported: `hash` as buckets, `keep` as they are, None as usual."""

    @property
    def text_key(self) -> str | None:
        """The secret key of the hash buckets of texts; empty or None for one that is made from the model's name."""

    @property
    def categorical(self) -> Sequence[str] | None:
        """The names of numeric features that are categories; None to infer them from their values."""


class CallDecoder(Protocol):
    """The Protocol of a decoder of the inference calls of one session.

    Runs on: one thread at a time.
    """

    model: ModelIdentity

    def decode_batch(self, batch: CallBatch) -> Predictions:
        """Decodes a batch of one or more inference calls into predictions."""

    def read_call(self, inputs: Side, outputs: Side) -> CallSummary | None:
        """Reads label and confidence of one inference call, without side effects; None if only a batch can be read."""


class TensorDecoder:
    """Decodes the copied tensors of the inference calls of one session into predictions and features.

    Runs on: one thread at a time.

    Args:
        plan: What was copied of each call.
        options: Returns what the developer declared of the model of a name.
        max_features: Number of features that are profiled at most.
        findings: Takes what is inferred.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        options: Callable[[str], DeclaredModelOptions],
        max_features: int,
        findings: ModelFindings | None = None,
    ) -> None:
        declared = options(find_model_name(plan.session))
        self._findings = findings or ModelFindings()
        self.model = identify_model(plan.session, version=declared.version, separate=self._findings.separate_version)
        self._plan = plan
        self._declared = declared
        self._has_doubts = False
        """Whether a kind was assumed of which nobody was warned yet."""
        self._findings.note_running_model(self.model.name)
        self._check_output_names()
        namer = make_text_pseudonymizer(plan, declared, self.model.name)
        self._outputs = OutputDecoder(plan, declared, self._note_finding, namer, self._report_output_kind)
        self._reader = SingleCallReader(plan, self._outputs)
        if callable(declared.output_kind):
            for tensor in plan.outputs:
                self._report_output_kind(tensor.name, BY_FUNCTION)
        self._profiler = FeatureProfiler(
            plan.inputs,
            names=declared.features,
            categorical=declared.categorical,
            limit=max_features,
            metadata=plan.session.metadata,
            note=functools.partial(self._note_finding, "inputs"),
            namer=namer,
        )

    def decode_batch(self, batch: CallBatch) -> Predictions:
        """Decodes a batch of one or more inference calls into predictions and features."""
        calls = len(batch.errors)
        samples = SampleSizes(self._plan.inputs, batch.inputs)
        decoded = self._decode_outputs(batch.outputs, samples, calls)
        if self._has_doubts:
            self._has_doubts = False
            self._findings.warn_of_assumed_kinds(self.model.name)
        if not self._plan.outputs and not all(batch.errors):
            self._note_finding("outputs", TIMED_ONLY)
        return Predictions(
            model=self.model,
            operation=self._plan.operation,
            started_ns=batch.started_ns,
            duration_ns=np.maximum(batch.ended_ns - batch.started_ns, 0),
            contexts=batch.contexts,
            errors=batch.errors,
            batch_sizes=samples.fill_unknown_sizes(decoded.sizes),
            heads=decoded.heads,
            values=decoded.values,
            items=decoded.items,
            inputs=self._profiler.summarize_inputs(batch.inputs),
        )

    def read_call(self, inputs: Side, outputs: Side) -> CallSummary | None:
        """Reads label and confidence of one inference call, without side effects; None if only a batch can be read."""
        return None if callable(self._declared.output_kind) else self._reader.read_call(inputs, outputs)

    def _decode_outputs(self, outputs: Sequence[Items], samples: SampleSizes, calls: int) -> DecodedOutputs:
        tensors, function = self._plan.outputs, self._declared.output_kind
        if not callable(function):
            return self._outputs.decode_outputs(outputs, samples, calls)
        sizes = compute_batch_sizes(tensors[0], outputs[0]) if tensors else np.zeros(calls, dtype=np.int64)
        copies = list(zip(*map(split_copies_by_call, outputs), strict=True))
        labels, confidences = decode_with_function(function, tensors, copies, self._outputs.classes.class_names)
        return DecodedOutputs(heads={"": ClassificationHead(labels=labels, confidences=confidences)}, sizes=sizes)

    def _check_output_names(self) -> None:
        """Warns of output names in the developer's options that the model does not have."""
        kinds, names = self._declared.output_kind, self._plan.output_names
        if isinstance(kinds, Mapping) and names:
            for name in kinds.keys() - set(names):
                finding = f"declared, but the outputs are {', '.join(names[:MAX_LISTED])}.{suggest_name(name, names)}"
                self._note_finding(f"output {name}", finding.rstrip(".?"), is_warning=True)

    def _report_output_kind(self, output: str, decision: KindDecision) -> None:
        report = make_output_report(decision, self._plan.session.graph().state)
        self._findings.outputs.note_report(self.model.model_key, output, report)

    def _note_finding(self, subject: str, finding: str, **options: Any) -> None:
        self._has_doubts |= bool(options.get("assumption"))
        self._findings.note_finding(self.model.name, subject, finding, **options)


def make_text_pseudonymizer(plan: Plan, declared: DeclaredModelOptions, model: str) -> TextPseudonymizer:
    """Makes the object that decides which labels and categories of a model may be exported as plain text."""
    session = plan.session
    keys = [key for tensor in plan.outputs for key in tensor.keys]
    graph_labels = [label for origin in session.graph().outputs.values() for label in origin.labels]
    labels, categories = read_reference_vocabulary(session.metadata)
    return TextPseudonymizer(
        buckets=None if declared.text == "keep" else TextBuckets(key=declared.text_key or "", model=model),
        labels=[*map(str, declared.labels), *read_class_names(session.metadata), *keys, *graph_labels, *labels],
        categories={
            feature: [*map(str, declared.categories.get(feature, ())), *categories.get(feature, ())]
            for feature in {*declared.categories, *categories}
        },
        kept_features=declared.keep_text,
    )


def make_model_vocabularies(
    limit: int,
    options: Callable[[str], DeclaredModelOptions],
    *,
    on_full: Callable[[str, str], None] = lambda _, __: None,
) -> ModelVocabularies:
    """Makes the vocabularies, which limit how many labels and categories of each model are counted by name."""
    return ModelVocabularies(
        limit=limit,
        buckets_of=lambda model: TextBuckets(key=options(model).text_key or "", model=model),
        declared_categories=lambda model, feature: options(model).categories.get(feature, ()),
        on_full=on_full,
    )


class DecoderCache:
    """Caches the decoders of the models in use: one for each session and set of requested outputs.

    Runs on: one thread at a time.

    Args:
        make: Makes the decoder of a plan.
        on_new: Called with a plan once it has a decoder.
    """

    def __init__(self, make: Callable[[Plan], CallDecoder], *, on_new: Callable[[Plan], None]) -> None:
        self._make = make
        self._on_new = on_new
        self._decoders: dict[Plan, CallDecoder] = {}

    def find_decoder(self, plan: Plan) -> CallDecoder | None:
        """Returns the decoder of a session plan; None before its first batch."""
        return self._decoders.get(plan)

    def decode_batch(self, batch: CallBatch) -> Predictions:
        """Decodes a batch of inference calls into predictions with the decoder of its session plan."""
        decoder = self._decoders.get(batch.plan)
        if decoder is None:
            if len(self._decoders) >= MAX_DECODERS:
                del self._decoders[next(iter(self._decoders))]
            decoder = self._decoders[batch.plan] = self._make(batch.plan)
            self._on_new(batch.plan)
        return decoder.decode_batch(batch)
