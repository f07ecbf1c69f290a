"""The engine: a loaded bundle, and the jobs that need only the model: speak, chat.

In: an opened bundle; sound and text. Out: results, and streams of events as they happen. Everything runs in the
calling thread. `voxrill.Model` adds the applications.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from voxrill.devices import overflow
from voxrill.devices.choice import ALL, CPU_ONLY, Choice
from voxrill.devices.kernels import own_products
from voxrill.devices.pages import HugePages
from voxrill.devices.processor import cores
from voxrill.devices.providers import CPU
from voxrill.runtime.audio.sound_source import AudioSource
from voxrill.runtime.audio.sound_writer import SoundFormat, SoundWriter
from voxrill.runtime.bundle import contract
from voxrill.runtime.bundle.bundle import Bundle
from voxrill.runtime.bundle.few_bits import has_three_bits
from voxrill.runtime.bundle.manifest import TOKENIZER_FILE, Task
from voxrill.runtime.bundle.memory import check_memory, graphs_to_load
from voxrill.runtime.bundle.tuned import TunedForm, is_repacked, open_tuned
from voxrill.runtime.engine.audio_encoder import AudioEncoder
from voxrill.runtime.engine.backbone import Backbone
from voxrill.runtime.engine.codec import Codec
from voxrill.runtime.engine.context import Parts
from voxrill.runtime.engine.conversation import Conversation, Output
from voxrill.runtime.engine.depthformer import Depthformer
from voxrill.runtime.engine.languages import languages, prompt_in
from voxrill.runtime.engine.options import AnswerKeywords, answer_options
from voxrill.runtime.engine.placement import place_graphs
from voxrill.runtime.engine.session import Graph
from voxrill.runtime.engine.stats import StageTimes
from voxrill.runtime.engine.tokenizer import Tokenizer
from voxrill.runtime.engine.turnstile import Turnstile
from voxrill.runtime.errors import UsageError, VoxrillWarning
from voxrill.runtime.events import AudioEvent, EndEvent, Event, Result

VOICE = "{voice}"
"""Where a system prompt names the voice."""


class Fallback(VoxrillWarning):
    """Some nodes of a graph run on the CPU, although the graph was given to another execution provider."""


class Inexact(VoxrillWarning):
    """A graph's 8-bit products are wrong on this processor: onnxruntime is too old, or the Voxrill that made it."""


class Engine:
    """A loaded model. `manifest` says what it is, `times` where its time goes; `codec` decodes frames.

    Several threads may use one model: they take turns, one run of a graph at a time (see `Turnstile`). What a call
    returns (an iterator of events, a `Speech`, a `Conversation`) belongs to one thread at a time.

    `close` frees it, and so does the end of a `with` block.

    Args:
        bundle: what to load.
        threads: threads per graph; 0 for as many as the tuned form says, or one per physical core.
        tuned: the tuned form to load; the memory that is free is not checked then. None for the one that `voxrill tune`
            made on this device, if there is one that fits. Only graphs of the CPU are loaded from it.
        choice: the provider of each graph. If it leaves nodes to the CPU, a warning says how many. A chip
            of Qualcomm's (`qnn:soc=SM8650`) takes the contexts that were compiled for it, and of the npu flavour's
            graphs only those that were made for an NPU.
        profiling: the folder for onnxruntime's records of every node's time.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int = 0,
        tuned: TunedForm | None = None,
        choice: Choice = CPU_ONLY,
        profiling: Path | None = None,
    ) -> None:
        if tuned is None:
            check_memory(bundle)
            tuned = open_tuned(bundle)
        self.tuned = tuned
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.threads = threads or self.tuned.threads
        self.times = StageTimes()
        self._turnstile = Turnstile()
        manifest, spec, static = self.manifest, self.manifest.model, self.manifest.static
        specs = manifest.specs()

        _check_graphs(choice, specs)
        placements = place_graphs(bundle, choice, self.tuned)
        self.huge_pages = HugePages(manifest.size)

        def opened(name: str) -> Graph:
            return Graph(
                placements[name].file,
                specs[name],
                times=self.times,
                threads=self.threads,
                repack=is_repacked(manifest, name),
                tuned=placements[name].tuned,
                provider=placements[name].provider,
                strict=choice.strict,
                profiling=profiling and profiling / name,
                turnstile=self._turnstile,
            )

        wanted = [name for name in specs if name in (*graphs_to_load(manifest), *choice.graphs)]
        with ThreadPoolExecutor(cores()) as pool:  # weights are repacked by one thread a graph
            graphs = dict(zip(wanted, pool.map(opened, wanted), strict=True))
        if not graphs[
            contract.DECODER
        ].own_products:  # of another provider, or with blocks that our products do not take
            graphs |= {name: opened(name) for name in specs if name not in graphs}
        self.huge_pages.begin()
        self.graphs: dict[str, Graph] = graphs
        _tell_fallback(graphs.values())
        _tell_inexact(graphs.values())
        _tell_four_bits(placements[name].file for name, graph in graphs.items() if not graph.own_products)
        self._parts: Parts | None = Parts(
            spec=spec,
            tokenizer=Tokenizer(bundle.path(TOKENIZER_FILE)),
            encoder=AudioEncoder(
                graphs[contract.AUDIO_ENCODER],
                spec.log_mel,
                self.times,
                static.mel_frames if static else None,
                spec.encoder,
            ),
            backbone=Backbone(
                graphs[contract.DECODER],
                graphs[contract.TEXT_HEAD],
                [graph for name, graph in graphs.items() if contract.is_prefill(name)],
                static.context if static else None,
                spec.backbone.max_positions,
            ),
            depthformer=Depthformer(graphs[spec.frame_decoder], spec.codes),
            text_table=bundle.table(manifest.text_embeddings),
            audio_table=bundle.table(manifest.audio_embeddings),
            codec=Codec(graphs[spec.codec.graph], spec.codec, spec.codes, static.frames if static else None),
            times=self.times,
            trim_silence=manifest.taught.trim_silence,
            refusal=manifest.taught.refusal,
            unwritten=manifest.tasks.unwritten,
            ends=manifest.tasks.ends,
        )
        self.codec = self.parts.codec

    def __enter__(self) -> Self:
        """The model, which is closed at the end of the `with` block."""
        self._turnstile.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        about = f"{type(self).__name__} {self.manifest.name}"
        if self.closed:
            return f"<{about}: closed>"
        providers = sorted({graph.provider.name for graph in self.graphs.values()})
        return (
            f"<{about}: {self.manifest.size / 1e6:.1f} MB, on {' and '.join(providers)} with {self.threads} "
            f"thread{'s' * (self.threads != 1)}, {self.sample_rate} Hz, "
            f"voices: {', '.join(self.voices) or 'any description'}>"
        )

    @property
    def closed(self) -> bool:
        """Whether the model was closed."""
        return self._turnstile.closed

    def close(self) -> None:
        """Free the model. What it is doing in other threads ends with an error. To close it again does nothing."""
        self._turnstile.close()
        self.huge_pages.stop()
        self._parts, self.graphs = None, {}
        vars(self).pop("codec", None)

    @property
    def parts(self) -> Parts:
        """What a context works with.

        Raises:
            UsageError: the model was closed.
        """
        self._turnstile.check_open()
        assert self._parts is not None
        return self._parts

    @property
    def voices(self) -> tuple[str, ...]:
        """The names that `speak` takes as `voice`; empty for a model that takes a description instead."""
        return self.manifest.tasks.speak.voices

    @property
    def context_positions(self) -> int:
        """Positions that prompt and answers may take together (a text token is one, a second of sound 12.5)."""
        return self.manifest.context_positions

    @property
    def sample_rate(self) -> int:
        """Hz of the sound this model speaks."""
        return self.manifest.model.codec.sample_rate

    @property
    def languages(self) -> tuple[str, ...]:
        """The codes (ISO 639-1) of the languages that the model hears and speaks."""
        return languages(self.manifest.tasks)

    def speak(
        self,
        text: str,
        *,
        voice: str | None = None,
        system: str | None = None,
        language: str | None = None,
        **options: Unpack[AnswerKeywords],
    ) -> Speech:
        """Say `text`. Nothing is computed until the speech is iterated, saved or asked for its result.

        Args:
            text: what to say.
            voice: one of the family's voices; for a family without names of voices, a description.
            system: another system prompt than the family's own; `{voice}` in it is replaced by the voice.
            language: what language to say it in, by its code ("de") or English name; None for the model's own.
            options: see `AnswerOptions`.

        Raises:
            UsageError: the text is empty, voice or language is unknown, or the system prompt has no place for it.
            UnknownText: the model does not know words of the text.
        """
        answer_options("speak", options)
        if not text.strip():
            raise UsageError("there is nothing to say: the text is empty", "Give some text")
        conversation = self.reciting(voice, prompt_in(self.manifest.tasks, self.manifest.tasks.speak, language, system))
        return Speech(conversation.ask(text=text, output="both", **options), self.sample_rate)

    def reciting(self, voice: str | None = None, system: str | None = None) -> Conversation:
        """A conversation that says aloud what it is asked: what `speak` is made of.

        Raises:
            UsageError: the voice is unknown, or the system prompt has no place for it.
        """
        task = self.manifest.tasks.speak
        chosen, prompt = _voice(task, voice), task.system if system is None else system
        if voice is not None and VOICE not in prompt:
            raise UsageError("the system prompt has no place for a voice", f"Write {VOICE} in it, or give no voice")
        return Conversation(self.parts, task, prompt.replace(VOICE, chosen), word_for_word=True)

    def chat(
        self,
        *,
        audio: AudioSource | None = None,
        text: str | None = None,
        system: str | None = None,
        output: Output = "both",
        sample_rate: int | None = None,
        trim: bool | None = None,
        **options: Unpack[AnswerKeywords],
    ) -> Iterator[Event]:
        """Answer one question, spoken, written or both; events as they happen, an `EndEvent` last.

        Args:
            audio: the spoken part, heard before the written one: see `AudioSource`.
            text: the written part.
            system: another system prompt than the family's own.
            output: "both" answers aloud and in text, "audio" aloud, with the text held back, "text" in text.
            sample_rate: Hz of an array.
            trim: hear only the speech in the sound; None for what suits the model.
            options: see `AnswerOptions`.

        Raises:
            UsageError: neither audio nor text was given.
            UnknownText: see `Conversation.ask`.
            AudioFileError: the audio cannot be read, or is not usable sound.
        """
        answer_options("chat", options)
        conversation = self.conversation(system=system, output=output)
        return conversation.ask(audio=audio, text=text, sample_rate=sample_rate, trim=trim, **options)

    def conversation(self, *, system: str | None = None, output: Output = "both") -> Conversation:
        """A conversation of several turns, each of which knows those before it.

        Args:
            system: another system prompt than the family's own for this output.
            output: what turns are answered with, unless a turn says otherwise.
        """
        tasks = self.manifest.tasks
        return Conversation(self.parts, tasks.write if output == "text" else tasks.chat, system, output)


def _check_graphs(choice: Choice, known: Iterable[str]) -> None:
    unknown = choice.graphs - set(known)
    if unknown:
        raise UsageError(f"there is no graph {min(unknown)!r}", f"Give one of: {ALL}, {', '.join(known)}")


def _tell_fallback(graphs: Iterable[Graph]) -> None:
    """Warn of nodes that run on the CPU though their graph was given to another provider."""
    fallen = []
    for graph in graphs:
        if not graph.on_cpu:
            nodes = graph.assigned().get(CPU)
            if nodes:
                fallen.append(f"{graph.spec.name} {nodes.total()} ({graph.provider.name})")
    if fallen:
        counts = ", ".join(fallen)
        warnings.warn(f"nodes that run on the CPU instead: {counts}; --strict refuses that", Fallback, stacklevel=4)


def _tell_inexact(graphs: Iterable[Graph]) -> None:
    """Warn of graphs whose 8-bit products are wrong on this processor."""
    inexact = [graph.spec.name for graph in graphs if not graph.exact]
    if inexact:
        newer = ".".join(map(str, overflow.EXACT_FROM))
        remedy = (
            "quantise the bundle again with this version of Voxrill"
            if overflow.asks_exact()
            else f"update onnxruntime to {newer} or newer"
        )
        warnings.warn(
            f"this processor has no VNNI, and without it the 8-bit products of {', '.join(inexact)} are cut off, so "
            f"answers may be wrong: {remedy}",
            Inexact,
            stacklevel=4,
        )


def _tell_four_bits(others: Iterable[Path]) -> None:
    """Warn if weights of 3 bits become weights of 4, in graphs that run without our own products."""
    if any(map(has_three_bits, others)):
        why = own_products().reason
        warnings.warn(
            f"weights of 3 bits take the memory of 4 here, without Voxrill's own products{why and f': {why}'}",
            VoxrillWarning,
            stacklevel=4,
        )


def _voice(task: Task, voice: str | None) -> str:
    if voice is None:
        return task.voice
    known = {name.casefold(): name for name in task.voices}
    if known and voice.casefold() not in known:
        raise UsageError(f"there is no voice {voice!r}", f"This model has: {', '.join(task.voices)}")
    return known.get(voice.casefold(), voice)


class Speech:
    """Speech as it is made: iterate it for `AudioEvent`s, or take the whole of it.

    It is computed once. A second iteration gives the same events.
    """

    def __init__(self, events: Iterator[Event], sample_rate: int) -> None:
        self._events = events
        self._heard: list[AudioEvent] = []
        self._result: Result | None = None
        self.sample_rate = sample_rate

    def __iter__(self) -> Iterator[AudioEvent]:
        yield from self._heard
        for event in self._events:
            if isinstance(event, AudioEvent):
                self._heard.append(event)
                yield event
            elif isinstance(event, EndEvent):
                self._result = event.result

    @property
    def result(self) -> Result:
        """The whole result. What is still missing is computed now."""
        for _ in self:
            pass
        assert self._result is not None
        return self._result

    @property
    def samples(self) -> NDArray[np.float32]:
        """All samples (n,) float32."""
        return self.result.samples

    def save(self, target: str | os.PathLike[str] | BinaryIO, *, format: SoundFormat | None = None) -> Result:
        """Write a sound file, frame by frame as the sound is made.

        Args:
            target: a path, at which the file appears when it is complete; or a file that is open for writing bytes,
                such as a `BytesIO`, which stays open.
            format: "wav" (16 bits), "flac", "ogg", "opus" or "mp3"; None for what the path's suffix says, and for WAV
                in an open file.

        Raises:
            AudioFileError: the file or the format cannot be written.
        """
        with SoundWriter(target, self.sample_rate, format) as writer:
            for event in self:
                writer.write(event.samples)
        return self.result
