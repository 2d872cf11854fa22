"""Collects what was inferred about each model: logged once, and listed by `status()`."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection
from typing import Final

from otel_mlmon.instrumentation.decode.model_identity import DIGEST_CHARACTERS
from otel_mlmon.instrumentation.decode.output_reports import OutputReports
from otel_mlmon.types import ModelKey

MAX_FINDINGS: Final = 1024

DESCRIPTION: Final = "description"
"""The subject of a description in `instrument(models=…)`."""

FILES: Final = "files"
"""The subject of a name that several files have."""

SETTLE_NAME: Final = (
    "If they are two models, give each session its name: otel_mlmon.instrument(model_name=lambda session: ...)"
)

UNMATCHED: Final = "no model of this name has run"

_LOG: Final = logging.getLogger("otel_mlmon")


class ModelFindings:
    """Collects the facts that were inferred about each model, such as the kind of an output.

    Runs on: `note_finding`, `note_running_model` and `warn_of_assumed_kinds` on one thread at a time, `note_model_file`
    likewise, beside them; `list_findings` on any.

    Args:
        declared: The models that the developer described, by name; may grow.
    """

    def __init__(self, declared: Collection[str] = ()) -> None:
        self._declared = declared
        self._models: set[str] = set()
        """The described models that have run."""
        self._has_run = False
        self._texts: dict[tuple[str, str], str] = {}
        self._files: dict[str, tuple[str, str, str]] = {}
        """Path, digest and version of the first file of each name."""
        self._digests: dict[ModelKey, str] = {}
        """The digest of the first content of each name and version."""
        self._doubts: dict[str, dict[str, str]] = {}
        """By model and output: the assumptions of which nothing was said yet."""
        self._doubted: set[str] = set()
        self.outputs = OutputReports()

    def note_running_model(self, model: str) -> None:
        """Notes that a model has run, and warns if options were given for a similar name only."""
        self._has_run = True
        if model in self._declared:  # others may be without number
            self._models.add(model)
        self._texts.pop((model, DESCRIPTION), None)
        if model in self._declared:
            return
        for name in difflib.get_close_matches(
            model, [name for name in self._declared if name not in self._models], n=1
        ):
            self.note_finding(name, DESCRIPTION, f"{UNMATCHED}; did you mean {model}, which has", is_warning=True)

    def note_finding(
        self,
        model: str,
        subject: str,
        finding: str,
        *,
        is_logged: bool = True,
        is_warning: bool = False,
        assumption: str = "",
        output: str = "",
    ) -> None:
        """Records a fact inferred about a model, and logs it once, however many sessions of the model show it.

        Args:
            model: The model's name.
            subject: What it is about.
            finding: The finding.
            is_logged: Whether it is logged, as information.
            is_warning: Whether it is a mistake of the developer's, which is logged as a warning.
            assumption: Why it is no more than an assumption, of which `warn_of_assumed_kinds` warns; empty if it is
                certain.
            output: The output whose kind was assumed.
        """
        key = (model, subject)
        if self._texts.get(key) == finding or (key not in self._texts and len(self._texts) >= MAX_FINDINGS):
            return
        self._texts[key] = finding
        if assumption and model not in self._doubted:
            self._doubts.setdefault(model, {})[output] = (
                f"{subject}: {finding}, assumed, since its file and name say no more than {assumption}"
            )
        elif is_logged or assumption:
            _LOG.log(logging.WARNING if is_warning else logging.INFO, "Model %s, %s: %s.", model, subject, finding)

    def warn_of_assumed_kinds(self, model: str) -> None:
        """Logs a warning, once for each model, of outputs whose kind was assumed, with the option that settles it."""
        doubts = self._doubts.pop(model, None)
        if doubts:
            self._doubted.add(model)
            _LOG.warning(
                "Model %s, %s. If %s something else: "
                "otel_mlmon.instrument(models={%r: ModelOptions(output_kind={%s})})",
                model, "; ".join(doubts.values()), "it is" if len(doubts) == 1 else "they are",
                model, ", ".join(f"{output!r}: ..." for output in doubts),
            )  # fmt: skip

    def note_model_file(self, model: ModelKey, path: str, digest: str) -> None:
        """Notes the file of a model, and warns once of a file of the same name with other content.

        A file that is replaced in its place is a new version, and so is one with a version of its own.

        Args:
            model: The name and version by which it is reported.
            path: The file; empty if the model came as bytes.
            digest: That of its content; empty if unknown.
        """
        if not path or not digest or (model.name not in self._files and len(self._files) >= MAX_FINDINGS):
            return
        first_path, first_digest, first_version = self._files.setdefault(model.name, (path, digest, model.version))
        if path == first_path:
            self._files[model.name] = (path, digest, model.version)
            return
        is_mixed = model.version == first_version
        are_versions = not is_mixed and not (
            digest.startswith(model.version) and first_digest.startswith(first_version)
        )
        if digest == first_digest or are_versions or (model.name, FILES) in self._texts:
            return
        finding = (
            f"two files of different content have this name and the version {model.version}, so that they are counted"
            " as one"
            if is_mixed
            else "two files of different content have this name, and are reported as its versions "
            f"{first_version} and {model.version}"
        )
        self.note_finding(model.name, FILES, f"{finding}. {SETTLE_NAME}", is_warning=True)

    def separate_version(self, model: ModelKey, digest: str) -> str:
        """Returns the version of a model to report, with a digest where one version has files of different content.

        Two files may have the same version in them: exporters write 1, and copies are changed by hand.

        Runs on: any thread.

        Args:
            model: Its name, and the version in its file.
            digest: That of its content; empty if unknown.
        """
        if not digest or not model.version or digest.startswith(model.version):
            return model.version
        if model not in self._digests and len(self._digests) >= MAX_FINDINGS:
            return model.version
        is_first = self._digests.setdefault(model, digest) == digest
        return model.version if is_first else f"{model.version}+{digest[:DIGEST_CHARACTERS]}"

    def note_full_vocabulary(self, model: str, feature: str) -> None:
        """Notes that a model has more labels, or categories of a feature, than are counted by name."""
        subject = f"values of {feature}" if feature else "labels"
        self.note_finding(model, subject, "more than max_labels, of which some or all are in buckets")

    def list_findings(self) -> dict[str, dict[str, str]]:
        """Returns all inferred facts, by model and subject."""
        by_model: dict[str, dict[str, str]] = {}
        if self._has_run:
            by_model = {name: {DESCRIPTION: UNMATCHED} for name in list(self._declared) if name not in self._models}
        for (model, subject), finding in list(self._texts.items()):
            by_model.setdefault(model, {})[subject] = finding
        return by_model
