"""The public model: the engine, and every application of it.

In: a bundle folder; sound and text. Out: results, and streams of events as they happen. Everything runs in the
calling thread, but for what is awaited: that runs in a thread of its own, so that an event loop is never blocked.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from numpy.typing import DTypeLike

from voxrill.devices.choice import choose
from voxrill.devices.providers import CPU_NAME
from voxrill.runtime.apps.classify import TASK, Classification, Classifier
from voxrill.runtime.apps.control import Control
from voxrill.runtime.apps.grammar import Grammar, read_grammar
from voxrill.runtime.apps.transcript import Transcript, TranscriptEvent
from voxrill.runtime.apps.transcription import Sound, transcribe, transcribe_stream
from voxrill.runtime.apps.translation import translation_prompt
from voxrill.runtime.asynchronous import from_loop, in_thread, items_in_thread
from voxrill.runtime.audio.sound_source import AudioSource, SoundPiece
from voxrill.runtime.bundle.builtin import BUILTIN, open_builtin
from voxrill.runtime.bundle.packed import open_folder_or_pack
from voxrill.runtime.engine.conversation import Output
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.languages import prompt_in
from voxrill.runtime.engine.options import AnswerKeywords, TextKeywords, answer_options
from voxrill.runtime.events import AudioEvent, Event

if TYPE_CHECKING:
    from voxrill.runtime.apps.documents.answer import Answer
    from voxrill.runtime.apps.documents.index import Index
    from voxrill.runtime.apps.evaluation.evaluating import EvaluationKeywords, TaskName
    from voxrill.runtime.apps.evaluation.running import Evaluation
    from voxrill.runtime.apps.voice_bot import TalkKeywords
    from voxrill.runtime.audio.own_sink import SoundSink
    from voxrill.runtime.audio.own_source import SoundSource
    from voxrill.runtime.talk.session import TalkSession


def load(
    bundle: str | os.PathLike[str] | None = None,
    threads: int = 0,
    provider: str | Iterable[str] = CPU_NAME,
    strict: bool = False,
) -> Model:
    """Load a bundle that `voxrill export` wrote, or the small built-in model.

        with voxrill.load("bundle") as model:
            print(model.transcribe("question.wav").text)

    Args:
        bundle: its folder, or a file of `voxrill pack`, which is unpacked once into the user's cache; None or "pebble"
            for the built-in model, whose world is `pebble_world()`.
        threads: threads per graph; 0 for as many as `voxrill tune` found best, or one per physical core.
        provider: what --provider takes: an execution provider's name for all graphs, `GRAPH=NAME` for one, or several.
        strict: refuse a graph of which its provider would take only a part.

    Raises:
        BundleError: it is missing, incomplete, changed, of a newer format, or no bundle: a checkpoint must be exported
            first, and the message says how.
        NotEnoughMemory: it would not fit; nothing was loaded.
        ProviderError: a provider is unknown, not installed, or finds nothing to run on.
        ProviderRefused: strict, and nodes of a graph would run on the CPU.
    """
    opened = open_builtin() if bundle in (None, BUILTIN) else open_folder_or_pack(Path(bundle or ""))
    return Model(opened, threads, choice=choose([provider] if isinstance(provider, str) else provider, strict))


class Model(Engine):
    """A loaded model and its applications. See `Engine` for the arguments, `load` for the usual way to make one.

    Several threads may use one model: they take turns, one run of a graph at a time. An iterator, a `Speech` or a
    `Conversation` belongs to one thread at a time.

    `achat`, `aspeak`, `atranscribe` and `atranscribe_stream` are for an event loop: each call works in a thread of its
    own, which stops when the task is cancelled or the `async for` loop is left. For every other method there is
    `asyncio.to_thread`.
    """

    def transcribe(
        self,
        audio: AudioSource,
        *,
        sample_rate: int | None = None,
        system: str | None = None,
        language: str | None = None,
        trim: bool | None = None,
        **options: Unpack[TextKeywords],
    ) -> Transcript:
        """The words of a sound of any length, with the times of its segments.

        Args:
            audio: a path, a file's bytes, an open file, an array with its `sample_rate`, or a mapping
                `{"array", "sampling_rate"}`: see `AudioSource`.
            sample_rate: Hz of an array.
            system: another system prompt than the family's own.
            language: the language that is spoken, by its code ("de") or English name; None leaves it to the model.
            trim: True hears only the speech in the sound, segment by segment. False hears a sound of up to 30 seconds
                whole, as one segment, and longer ones segment by segment. None does what suits the model.
            options: `max_new_tokens` (of each segment), `seed`, `temperature`, `top_k` and `top_p`.

        Raises:
            AudioFileError: it cannot be read, or is not usable sound.
            UsageError: an array has no sample rate, or an option is out of range.
        """
        system = prompt_in(self.manifest.tasks, self.manifest.tasks.transcribe, language, system)
        return transcribe(self, audio, sample_rate, system, trim, **options)

    def transcribe_stream(
        self,
        sound: Sound,
        *,
        sample_rate: int | None = None,
        dtype: DTypeLike | None = None,
        system: str | None = None,
        language: str | None = None,
        tentative: bool = True,
        **options: Unpack[TextKeywords],
    ) -> Iterator[TranscriptEvent]:
        """The words of a sound of any length, segment by segment as they are spoken. See `Transcriber`.

        Args:
            sound: as for `transcribe`; or an iterable of its pieces as they come: arrays [samples] or
                [samples, channels], or the bytes of mono samples.
            sample_rate: Hz of an array or of pieces.
            dtype: the type of the samples of pieces, such as "int16"; needed where they are bytes.
            system: another system prompt than the family's own.
            language: as for `transcribe`.
            tentative: also say what the open segment seems to say.
            options: `max_new_tokens`, `seed`, `temperature`, `top_k` and `top_p`.

        Raises:
            AudioFileError: it cannot be read, or is not usable sound.
            UsageError: pieces have no rate or type, or change their type or channels on the way.
        """
        system = prompt_in(self.manifest.tasks, self.manifest.tasks.transcribe, language, system)
        return transcribe_stream(self, sound, sample_rate, dtype, system, tentative, **options)

    def translate(
        self,
        audio: AudioSource,
        to: str,
        *,
        output: Output = "text",
        sample_rate: int | None = None,
        trim: bool | None = None,
        **options: Unpack[AnswerKeywords],
    ) -> Iterator[Event]:
        """Say in another language what a sound says; events as they happen, an `EndEvent` last.

        Args:
            audio: what to listen to: see `AudioSource`.
            to: the language's English name, such as "German".
            output: "text", or "both" or "audio" to answer aloud. No published model was trained to speak translations.
            sample_rate: Hz of an array.
            trim: hear only the speech in the sound; None for what suits the model.
            options: see `AnswerOptions`.

        Raises:
            UsageError: the language has no name.
            UnknownText: the model does not know the language.
            AudioFileError: the audio cannot be read, or is not usable sound.
        """
        answer_options("translate", options)
        return self.chat(
            audio=audio,
            system=translation_prompt(to, self.parts.tokenizer),
            output=output,
            sample_rate=sample_rate,
            trim=trim,
            **options,
        )

    def documents(
        self,
        folder: str | os.PathLike[str],
        index: str | os.PathLike[str] | None = None,
        embeddings: str | os.PathLike[str] | None = None,
    ) -> Index:
        """The index of a folder's documents, brought up to date: `.txt`, `.md`, `.rst` and `.html` files. Close it.

        Args:
            folder: where they are, subfolders included.
            index: the file that the index is kept in; None for one in the user's cache.
            embeddings: folder of a sentence-transformers model in ONNX; with it other words for the same are found too.

        Raises:
            UsageError: there is no such folder, or nothing in it can be read.
            DataError: `embeddings` is no sentence model, or `index` is another file.
        """
        from voxrill.runtime.apps.documents import asking  # loads sqlite, which only this needs

        place, sentences = (None if path is None else Path(path) for path in (index, embeddings))
        opened = asking.open_index(self, Path(folder), place, sentences)
        try:
            opened.update()
        except BaseException:
            opened.close()
            raise
        return opened

    def ask(
        self,
        question: str | None = None,
        *,
        documents: Index | str | os.PathLike[str],
        audio: AudioSource | None = None,
        aloud: bool = False,
        voice: str | None = None,
        passages: int | None = None,
        sample_rate: int | None = None,
        trim: bool | None = None,
        **options: Unpack[AnswerKeywords],
    ) -> Answer:
        """Answer a question from documents, with citations that exist. Text comes as the answer is iterated.

        Args:
            question: typed.
            documents: what `documents` returned; or a folder, which is brought up to date first.
            audio: the question as sound, instead or as well.
            aloud: whether the answer is spoken too, once its text is whole.
            voice: as in `speak`.
            passages: how many passages the model reads at most; None for the number that does best.
            sample_rate: Hz of an array.
            trim: hear only the speech in the sound; None for what suits the model.
            options: see `AnswerOptions`.

        Raises:
            UsageError: there is no question, or this model cannot read documents.
            AudioFileError: the audio cannot be read, or is not usable sound.
            ContextFull: not even one passage fits into the model's context.
        """
        from voxrill.runtime.apps.documents import asking
        from voxrill.runtime.apps.documents.index import Index

        answer_options("ask", options)
        asking.check_reader(self)
        asked = asking.heard(self, question, audio, trim, sample_rate)
        if isinstance(documents, Index):
            return asking.ask(self, asked, documents, passages, aloud=aloud, voice=voice, **options)
        with self.documents(documents) as index:
            return asking.ask(self, asked, index, passages, aloud=aloud, voice=voice, **options)

    def classify(
        self,
        audio: AudioSource,
        *,
        labels: Sequence[str] | None = None,
        task: str = TASK,
        system: str | None = None,
        sample_rate: int | None = None,
        trim: bool | None = None,
    ) -> Classification:
        """Which of `labels` fits a sound, with a probability for each; for many sounds make one `Classifier`.

        Args:
            audio: what to listen to: see `AudioSource`.
            labels: at least two; None for those that the model was taught for the task, if it was.
            task: what the labels name.
            system: a prompt of your own instead of the one that asks for the task.
            sample_rate: Hz of an array.
            trim: hear only the speech in the sound; None for what suits the model.

        Raises:
            UsageError: there are too few labels, or two are the same.
            UnknownText: the model does not know their words.
            AudioFileError: it cannot be read, or is not usable sound.
        """
        return Classifier(self, labels, task, system).classify(audio, trim, sample_rate)

    def control(self, commands: str | os.PathLike[str] | Grammar, threshold: float | None = None) -> Control:
        """What listens for commands and finds the call that each means: `control(file).hear(audio)`.

        Args:
            commands: a TOML file of commands (see `read_grammar`), or what was made of one.
            threshold: confidence from which a call is accepted, instead of the file's or the default.

        Raises:
            DataError: something in the commands cannot be meant or run; the message says what.
            UnknownText: the model does not know words of the commands.
        """
        grammar = commands if isinstance(commands, Grammar) else read_grammar(Path(commands))
        return Control(self, grammar, threshold)

    def talk(
        self,
        source: SoundSource | str | None = None,
        sink: SoundSink | str | None = None,
        **how: Unpack[TalkKeywords],
    ) -> TalkSession:
        """A live conversation: sound in, sound out, events on the way. `voxrill talk` is made of it.

            with model.talk(pieces, sink, source_rate=16000, source_dtype="int16") as talk:
                for event in talk:
                    print(event)

        An answer is begun at the first short silence, and withdrawn unheard if the user goes on. The user may interrupt
        it. The talk ends when its source is over and answered, or with `close`. In an event loop, `async with` and
        `async for` do the same, and source, sink and tools may be asynchronous.

        Args:
            source: what is heard: an iterable of pieces, a function that returns the next one, an object with `read`;
                or a microphone by its name, "default" for the usual one. None if questions are only typed (`ask`).
            sink: where answers go to: an object with `write(samples)`, and with `stop()` if it buffers; or a
                loudspeaker by its name, "default" for the usual one. None if answers are only read.
            how: see `TalkKeywords`.

        Raises:
            UsageError: it is no source or no sink, or options do not go together.
            AudioDeviceError: a device was named, and there is none.
        """
        from voxrill.runtime.apps.voice_bot import voice_bot  # loads what only a live talk needs

        return voice_bot(self, source, sink, **how)

    def evaluate(
        self, task: TaskName, data: str | os.PathLike[str], **wishes: Unpack[EvaluationKeywords]
    ) -> Evaluation:
        """Score the model's answers and their times, beside those of other programs; see docs/guides/evaluate.md.

        The model is asked when the evaluation is iterated, which gives outcomes as they come, or when `rows` is read.

        Args:
            task: "asr", "tts", "chat" or "voicebench".
            data: file or folder.
            wishes: see `EvaluationKeywords`; what another task takes is refused.

        Raises:
            DataError: something in the data or in a peer's file cannot be read.
            MissingDependency: the extra `eval` is not installed.
        """
        from voxrill.runtime.apps.evaluation.evaluating import evaluate  # loads jiwer and its like

        return evaluate(self, task, data, **wishes)

    def achat(
        self,
        *,
        audio: AudioSource | None = None,
        text: str | None = None,
        system: str | None = None,
        output: Output = "both",
        sample_rate: int | None = None,
        trim: bool | None = None,
        **options: Unpack[AnswerKeywords],
    ) -> AsyncGenerator[Event]:
        """As `chat`, for `async for`. Errors are raised when the first event is awaited."""
        return items_in_thread(
            lambda: self.chat(
                audio=audio,
                text=text,
                system=system,
                output=output,
                sample_rate=sample_rate,
                trim=trim,
                **options,
            )
        )

    def aspeak(
        self,
        text: str,
        *,
        voice: str | None = None,
        system: str | None = None,
        language: str | None = None,
        **options: Unpack[AnswerKeywords],
    ) -> AsyncGenerator[AudioEvent]:
        """As `speak`, for `async for`: the sound as it is made."""
        return items_in_thread(lambda: iter(self.speak(text, voice=voice, system=system, language=language, **options)))

    async def atranscribe(
        self,
        audio: AudioSource,
        *,
        sample_rate: int | None = None,
        system: str | None = None,
        language: str | None = None,
        trim: bool | None = None,
        **options: Unpack[TextKeywords],
    ) -> Transcript:
        """As `transcribe`, to be awaited."""
        return await in_thread(
            lambda: self.transcribe(
                audio, sample_rate=sample_rate, system=system, language=language, trim=trim, **options
            )
        )

    def atranscribe_stream(
        self,
        sound: Sound | AsyncIterable[SoundPiece],
        *,
        sample_rate: int | None = None,
        dtype: DTypeLike | None = None,
        system: str | None = None,
        language: str | None = None,
        tentative: bool = True,
        **options: Unpack[TextKeywords],
    ) -> AsyncGenerator[TranscriptEvent]:
        """As `transcribe_stream`, for `async for`. The pieces of the sound may come asynchronously, too."""
        return items_in_thread(
            lambda: self.transcribe_stream(
                from_loop(sound) if isinstance(sound, AsyncIterable) else sound,
                sample_rate=sample_rate,
                dtype=dtype,
                system=system,
                language=language,
                tentative=tentative,
                **options,
            )
        )

    async def aclose(self) -> None:
        """As `close`, to be awaited: it waits for the run of a graph that is under way."""
        await asyncio.to_thread(self.close)
