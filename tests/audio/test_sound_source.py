"""Every form in which a caller may hand in a sound, and what is refused."""

import io
import warnings

import numpy as np
import pytest
import soundfile

from tests.places import QUESTION
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.audio.sinc_resampler import resample
from voxrill.runtime.audio.sound_source import PieceReader, as_waveform, pieces_of
from voxrill.runtime.errors import AudioFileError, UsageError, VoxrillWarning

RATE = 16_000


def noise(samples=8000, seed=0):
    return (0.2 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32).clip(-1, 1)


def wav(samples=None, rate=RATE):
    file = io.BytesIO()
    soundfile.write(file, noise() if samples is None else samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


class Decoder:
    """As newer versions of datasets give a sound: read as a mapping, without being one."""

    def __getitem__(self, key):
        return {"array": noise().astype(np.float64), "sampling_rate": RATE}[key]


class Tensor:
    """As another library's array."""

    def __array__(self, dtype=None, copy=None):
        return noise()


class Upload:
    """As web frameworks give a file that was sent."""

    name = "upload"

    async def read(self, size=-1):
        return wav()


FORMS = {
    "bytes": lambda folder: wav(),
    "bytearray": lambda folder: bytearray(wav()),
    "memoryview": lambda folder: memoryview(wav()),
    "BytesIO": lambda folder: io.BytesIO(wav()),
    "file": lambda folder: (folder / "a.wav").open("rb"),
    "path": lambda folder: folder / "a.wav",
    "name": lambda folder: str(folder / "a.wav"),
    "pair": lambda folder: (noise(), RATE),
    "mapping": lambda folder: {"array": noise().astype(np.float64), "sampling_rate": RATE, "path": None},
    "decoder": lambda folder: Decoder(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_waveform(tmp_path, form):
    (tmp_path / "a.wav").write_bytes(wav())
    sound = FORMS[form](tmp_path)
    with sound if form == "file" else warnings.catch_warnings():
        np.testing.assert_allclose(as_waveform(sound), noise(), atol=1e-6)
    with FORMS[form](tmp_path) if form == "file" else warnings.catch_warnings() as opened:
        found = np.concatenate(list(pieces_of(opened if form == "file" else FORMS[form](tmp_path))))
    np.testing.assert_allclose(found, noise(), atol=1e-6)


def test_arrays_of_any_library_are_taken_with_their_rate():
    for samples in (noise(), Tensor()):
        np.testing.assert_array_equal(as_waveform(samples, RATE), noise())
        np.testing.assert_array_equal(np.concatenate(list(pieces_of(samples, RATE))), noise())
    assert abs(len(as_waveform(noise(), 48_000)) - 8000 / 3) <= 1


def test_bytes_of_unsigned_samples_have_their_zero_in_the_middle():
    np.testing.assert_allclose(
        as_waveform(np.array([0, 128, 192, 255], np.uint8), RATE), [-1, 0, 0.5, 0.992], atol=1e-3
    )


@pytest.mark.parametrize(
    ("sound", "options", "error", "says"),
    [
        (noise(), {}, UsageError, r"no sample rate\. Give it in Hz: sample_rate=16000"),
        (wav(), {"sample_rate": RATE}, UsageError, "brings its own sample rate.*frombuffer"),
        ({"array": noise(), "sampling_rate": RATE}, {"sample_rate": RATE}, UsageError, "own sample rate"),
        ({"samples": noise()}, {}, AudioFileError, "mapping.*sampling_rate"),
        ({"array": noise(), "sampling_rate": None}, {}, UsageError, "sample rate of None"),
        ({"array": np.zeros((2, 8000)), "sampling_rate": RATE}, {}, AudioFileError, "Transpose"),
        (b"", {}, AudioFileError, "the sound's bytes is empty"),
        (b"no sound at all, but text", {}, AudioFileError, "the sound's bytes is not a sound file"),
        (io.StringIO("text"), {}, AudioFileError, r"opened as text\. Open it for reading bytes"),
        (Upload(), {}, AudioFileError, r"must be awaited.*upload\.file"),
        ([0.1, 0.2], {"sample_rate": RATE}, AudioFileError, "type list"),
        (noise() * 20_000, {"sample_rate": RATE}, AudioFileError, "divide by their full scale"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_with_the_remedy(sound, options, error, says):
    with pytest.raises(error, match=says):
        as_waveform(sound, **options)


def test_a_closed_file_is_refused():
    file = io.BytesIO(wav())
    file.close()
    with pytest.raises(AudioFileError, match="is closed"):
        as_waveform(file)


def test_a_file_that_cannot_be_rewound_is_read():
    class Pipe:
        def __init__(self):
            self._file = io.BytesIO(wav())

        def read(self, size=-1):
            return self._file.read(size)

    np.testing.assert_allclose(as_waveform(Pipe()), noise(), atol=1e-6)


# Pieces


def cut(samples, *sizes):
    edges = np.cumsum(sizes)
    return np.split(samples, edges[edges < len(samples)])


def joined(pieces, rate=RATE, dtype=None):
    return np.concatenate([np.zeros(0, np.float32), *pieces_of(iter(pieces), rate, dtype)])


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
def test_pieces_of_any_length_are_one_sound(rate):
    whole = joined([noise(48_000)], rate)
    parts = joined(cut(noise(48_000), 1, 2, 700, 0, 5000, 1, 20_000), rate)
    np.testing.assert_array_equal(parts, whole)
    np.testing.assert_allclose(whole, resample(noise(48_000), rate, RATE), atol=1e-6)


def test_bytes_are_samples_of_the_declared_type_wherever_they_are_cut():
    samples = (noise() * 32767).astype("<i2")
    data = samples.tobytes()
    pieces = [data[:1], data[1:4], b"", data[4:777], data[777:]]
    np.testing.assert_array_equal(joined(pieces, dtype="int16"), samples / np.float32(32768))


def test_half_a_sample_at_the_end_is_told():
    with pytest.warns(VoxrillWarning, match="1 bytes are no whole sample"):
        joined([b"\0\0\0"], dtype="int16")


def test_channels_of_pieces_are_mixed():
    stereo = np.stack([noise(), np.zeros(8000, np.float32)], axis=1)
    np.testing.assert_allclose(joined([stereo[:300], stereo[300:]]), noise() / 2, atol=1e-7)


@pytest.mark.parametrize(
    ("pieces", "options", "error", "says"),
    [
        ([noise()], {"rate": None}, UsageError, r"pieces have no sample rate\. Give it"),
        ([noise()], {"rate": 0}, UsageError, "sample rate of 0"),
        ([b"\0\0"], {}, UsageError, r'have no type\. Give it: dtype="int16"'),
        ([noise()], {"dtype": "int16"}, UsageError, "A piece holds float32, and the sound is int16"),
        ([noise()], {"dtype": "int64"}, UsageError, "type int64"),
        ([noise()], {"dtype": "loud"}, UsageError, "no type of samples 'loud'"),
        ([noise(), (noise() * 9).astype(np.int16)], {}, UsageError, "holds int16, and the sound is float32"),
        ([noise(), np.zeros((9, 2), np.float32)], {}, UsageError, "2 channels, and the first one had 1"),
        ([np.array([np.nan], np.float32)], {}, AudioFileError, "NaN"),
        ([np.zeros((1, 2, 3), np.float32)], {}, AudioFileError, "shape"),
        ([0.5, 0.25], {}, AudioFileError, "piece of type float"),
        (["a.wav"], {}, AudioFileError, "piece of type str"),
        ([noise() * 9000], {}, AudioFileError, "divide by"),
    ],
)  # fmt: skip
def test_pieces_that_cannot_be_are_refused(pieces, options, error, says):
    with pytest.raises(error, match=says):
        joined(pieces, **options)


def test_a_declared_rate_and_type_are_checked_before_any_piece_comes():
    with pytest.raises(UsageError, match="sample rate"):
        pieces_of(iter([]))
    with pytest.raises(UsageError, match="type"):
        PieceReader(RATE, "complex64")


def test_what_is_for_pieces_is_refused_beside_a_file():
    with pytest.raises(UsageError, match="own type of samples"):
        pieces_of(QUESTION, dtype="int16")
    with pytest.raises(UsageError, match="own sample rate"):
        pieces_of(QUESTION, RATE)


def test_pieces_that_must_be_awaited_are_refused():
    async def pieces():
        yield noise()

    with pytest.raises(UsageError, match="must be awaited"):
        pieces_of(pieces(), RATE)


def test_the_question_is_the_same_from_its_path_and_its_bytes():
    np.testing.assert_array_equal(as_waveform(QUESTION.read_bytes()), read_audio(QUESTION))
