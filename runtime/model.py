"""The public model: load a bundle, transcribe, speak, chat.

In: a bundle folder; sound and text. Out: results, and streams of events as they happen. Everything runs in the
calling thread; a model is not to be used from two threads at once.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxrill.devices.choice import ALL, CPU_ONLY, Choice, choose
from voxrill.devices.errors import DeviceError
from voxrill.devices.processor import cores
from voxrill.devices.providers import CPU, CPU_NAME
from voxrill.devices.qnn import Htp
from voxrill.runtime import contract
from voxrill.runtime.apps.classify import TASK, Classification, Classifier
from voxrill.runtime.apps.control import Control
from voxrill.runtime.apps.documents import asking
from voxrill.runtime.apps.documents.answer import Answer
from voxrill.runtime.apps.documents.index import BEST, Index
from voxrill.runtime.apps.grammar import Grammar, read_grammar
from voxrill.runtime.apps.transcript import TranscriptEvent
from voxrill.runtime.apps.transcription import ModelRecogniser, Sound, Transcriber, options_for, pieces_of
from voxrill.runtime.apps.translation import translation_prompt
from voxrill.runtime.audio_encoder import AudioEncoder
from voxrill.runtime.audio_file import AudioSource, WavWriter
from voxrill.runtime.backbone import Backbone
from voxrill.runtime.builtin import open_builtin
from voxrill.runtime.bundle import Bundle, open_bundle
from voxrill.runtime.codec import Codec
from voxrill.runtime.compiled import open_compiled
from voxrill.runtime.context import Parts
from voxrill.runtime.conversation import Conversation, Output
from voxrill.runtime.depthformer import Depthformer
from voxrill.runtime.errors import UsageError
from voxrill.runtime.events import AudioEvent, EndEvent, Event, Result
from voxrill.runtime.manifest import TOKENIZER_FILE, Task
from voxrill.runtime.memory import check_memory
from voxrill.runtime.session import Graph
from voxrill.runtime.stats import StageTimes
from voxrill.runtime.tokenizer import Tokenizer
from voxrill.runtime.tuned import TunedForm, is_repacked, open_tuned

if TYPE_CHECKING:
    from voxrill.runtime.apps.evaluation.evaluating import TaskName
    from voxrill.runtime.apps.evaluation.running import Evaluation


def load(
    bundle: str | os.PathLike[str] | None = None,
    threads: int = 0,
    provider: str | Iterable[str] = CPU_NAME,
    strict: bool = False,
) -> Model:
    """Load a bundle that `voxrill export` wrote, or the small built-in model.

    Args:
        bundle: its folder; without one the built-in model, whose world is `pebble_world()`.
        threads: threads per graph; 0 for as many as `voxrill tune` found best, or one per physical core.
        provider: what --provider takes: an execution provider's name for all graphs, `GRAPH=NAME` for one, or several.
        strict: refuse a graph that its provider would not take wholly.

    Raises:
        BundleError: it is missing, incomplete, changed, or of a newer format.
        NotEnoughMemory: it would not fit; nothing was loaded.
        UsageError: a provider is unknown, not installed, or finds nothing to run on.
        ProviderRefused: strict, and nodes of a graph would run on the CPU.
    """
    opened = open_builtin() if bundle is None else open_bundle(Path(bundle))
    return Model(opened, threads, choice=chosen([provider] if isinstance(provider, str) else provider, strict))


def chosen(words: Iterable[str], strict: bool) -> Choice:
    """The providers that a user chose.

    Raises:
        UsageError: a provider, or a profile that was named in its place, is not known.
    """
    try:
        return choose(words, strict)
    except DeviceError as error:
        raise UsageError(error.message, error.remedy) from None


class Fallback(UserWarning):
    """Part of a graph runs on the CPU, though it was given to another execution provider."""


class Model:
    """A loaded model. `manifest` says what it is, `times` where its time goes, `codec` decodes frames by hand.

    Args:
        bundle: what to load.
        threads: threads per graph; 0 for as many as the tuned form says, or one per physical core.
        tuned: the tuned form to load, without asking for its memory; None for the one that `voxrill tune` left in the
            bundle's folder, if there is one that fits. It is of the CPU: graphs of other providers are loaded plain.
        choice: the provider of each graph. Where one does not take every node, a warning says how many it left.
        profile: the folder for onnxruntime's records of every node's time.
        npu: where the npu flavour's encoder, backbone and codec run instead; text head and depthformer do not.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int = 0,
        tuned: TunedForm | None = None,
        choice: Choice = CPU_ONLY,
        profile: Path | None = None,
        npu: Htp | None = None,
    ) -> None:
        if tuned is None:
            check_memory(bundle)
            tuned = open_tuned(bundle)
        self.tuned = tuned
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.threads = threads or self.tuned.threads
        self.times = StageTimes()
        compiled = open_compiled(bundle, npu) if npu else {}
        manifest, spec, static = self.manifest, self.manifest.model, self.manifest.static
        specs = manifest.specs()

        def opened(name: str) -> Graph:
            on_npu, ready = npu is not None and contract.is_for_npu(name), bundle.path(manifest.graphs[name].file)
            provider = npu.provider if npu and on_npu else choice.of(name)
            file = self.tuned.path(name) if provider.name == CPU_NAME else None
            return Graph(
                compiled.get(name) or file or ready,
                specs[name],
                self.times,
                self.threads,
                is_repacked(manifest, name),
                file is not None,
                provider,
                choice.strict,
                profile and profile / name,
                npu if on_npu else None,
            )

        _check_graphs(choice, specs)
        with ThreadPoolExecutor(cores()) as pool:  # weights are repacked by one thread a graph
            graphs = dict(zip(specs, pool.map(opened, specs), strict=True))
        self.graphs = graphs
        _tell_fallback(graphs.values())
        self.codec = Codec(graphs[spec.codec.graph], spec.codec, spec.codes, static.frames if static else None)
        self.parts = Parts(
            spec=spec,
            tokenizer=Tokenizer(bundle.path(TOKENIZER_FILE)),
            encoder=AudioEncoder(
                graphs[contract.AUDIO_ENCODER], spec.log_mel, self.times, static.mel_frames if static else None
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
        )

    @property
    def context_positions(self) -> int:
        """Positions that prompt and answers may take together (a text token is one, a second of sound 12.5)."""
        return self.manifest.context_positions

    @property
    def sample_rate(self) -> int:
        """Hz of the sound this model speaks."""
        return self.manifest.model.codec.sample_rate

    def transcribe(self, audio: AudioSource, *, system: str | None = None, **options: Any) -> Result:
        """The words of a sound: a file of any kind and rate, or an array (see `as_waveform`).

        Args:
            audio: what to listen to.
            system: another system prompt than the family's own.
            options: `max_new_tokens`, `seed`, `text_sampling` and `audio_sampling`.

        Raises:
            AudioFileError: it cannot be read, or is not usable sound.
        """
        task = self.manifest.tasks.transcribe
        conversation = Conversation(self, task, system)
        *_, end = conversation.ask(audio=audio, output="text", **options)
        assert isinstance(end, EndEvent)
        return end.result

    def transcribe_stream(
        self, sound: Sound, *, system: str | None = None, tentative: bool = True, **options: Any
    ) -> Iterator[TranscriptEvent]:
        """The words of a sound of any length, segment by segment as they are spoken. See `Transcriber`.

        Args:
            sound: a file, an array, or pieces (n,) at 16 kHz as they come.
            system: another system prompt than the family's own.
            tentative: also say what the open segment seems to say.
            options: `max_new_tokens`, `seed` and `text_sampling`.

        Raises:
            AudioFileError: it cannot be read, or is not usable sound.
        """
        recognise = ModelRecogniser(self, system, **options)
        return Transcriber(recognise, options_for(self, tentative)).stream(pieces_of(sound))

    def translate(self, audio: AudioSource, to: str, *, output: Output = "text", **options: Any) -> Iterator[Event]:
        """Say in another language what a sound says; events as they happen, an `EndEvent` last.

        Args:
            audio: what to listen to.
            to: the language's English name, such as "German".
            output: "text", or "both" or "audio" to answer aloud. No published model was trained to speak translations.
            options: `max_new_tokens`, `seed`, `text_sampling` and `audio_sampling`.

        Raises:
            UsageError: the language has no name.
            AudioFileError: the audio cannot be read, or is not usable sound.
        """
        return self.chat(audio=audio, system=translation_prompt(to), output=output, **options)

    def speak(self, text: str, *, voice: str | None = None, system: str | None = None, **options: Any) -> Speech:
        """Say `text`. Nothing is computed until the speech is iterated, saved or asked for its result.

        Args:
            text: what to say.
            voice: one of the family's voices (or, where it knows none by name, a description).
            system: another system prompt than the family's own.
            options: `max_new_tokens`, `seed`, `text_sampling` and `audio_sampling`.

        Raises:
            UsageError: the text is empty, or the voice unknown.
        """
        task = self.manifest.tasks.speak
        if not text.strip():
            raise UsageError("there is nothing to say: the text is empty", "Give some text")
        chosen = _voice(task, voice)
        conversation = Conversation(self, task, system or task.system.replace("{voice}", chosen))
        return Speech(conversation.ask(text=text, output="both", **options), self.sample_rate)

    def chat(
        self,
        *,
        audio: AudioSource | None = None,
        text: str | None = None,
        system: str | None = None,
        output: Output = "both",
        **options: Any,
    ) -> Iterator[Event]:
        """Answer one question, spoken, written or both; events as they happen, an `EndEvent` last.

        Args:
            audio: the spoken part, heard before the written one.
            text: the written part.
            system: another system prompt than the family's own.
            output: "both" or "audio" answers aloud (text comes with it, or is held back); "text" answers in text.
            options: `max_new_tokens`, `seed`, `text_sampling` and `audio_sampling`.

        Raises:
            UsageError: neither audio nor text was given.
            AudioFileError: the audio cannot be read, or is not usable sound.
        """
        return self.conversation(system=system, output=output).ask(audio=audio, text=text, **options)

    def documents(
        self,
        folder: str | os.PathLike[str],
        index: str | os.PathLike[str] | None = None,
        embeddings: str | os.PathLike[str] | None = None,
    ) -> Index:
        """The documents of a folder, indexed or brought up to date: `.txt`, `.md`, `.rst` and `.html` files. Close it.

        Args:
            folder: where they are, subfolders included.
            index: the file that the index is kept in; None for one in the user's cache.
            embeddings: folder of a sentence-transformers model in ONNX, which finds other words for the same too.

        Raises:
            UsageError: there is no such folder or model, or nothing in the folder can be read.
        """
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
        passages: int = BEST,
        **options: Any,
    ) -> Answer:
        """Answer a question from documents, with citations that exist. Text comes as the answer is iterated.

        Args:
            question: typed.
            documents: what `documents` returned; or a folder, which is brought up to date first.
            audio: the question as sound, instead or as well.
            aloud: whether the answer is spoken too, once its text is whole.
            voice: as in `speak`.
            passages: passages to give the model at most.
            options: `max_new_tokens`, `seed`, `text_sampling` and `audio_sampling`.

        Raises:
            UsageError: there is no question, or this model cannot read documents.
            AudioFileError: the audio cannot be read, or is not usable sound.
            ContextFull: not even one passage fits into the model's context.
        """
        asking.check_reader(self)
        asked = asking.heard(self, question, audio)
        if isinstance(documents, Index):
            return asking.ask(self, asked, documents, passages, aloud=aloud, voice=voice, **options)
        with self.documents(documents) as index:
            return asking.ask(self, asked, index, passages, aloud=aloud, voice=voice, **options)

    def classify(
        self, audio: AudioSource, *, labels: Sequence[str] | None = None, task: str = TASK, system: str | None = None
    ) -> Classification:
        """Which of `labels` fits a sound, with a probability for each; for many sounds make one `Classifier`.

        Raises:
            UsageError: there are too few labels, two are the same, or the model does not know their words.
            AudioFileError: it cannot be read, or is not usable sound.
        """
        return Classifier(self, labels, task, system).classify(audio)

    def control(self, commands: str | os.PathLike[str] | Grammar, threshold: float | None = None) -> Control:
        """Listens for commands, each with the call it means: `control(file).hear(audio)`.

        Args:
            commands: a TOML file of commands (see `read_grammar`), or what was made of one.
            threshold: confidence from which a call is accepted, instead of the file's or the default.

        Raises:
            UsageError: something in the commands cannot be meant, written or run; the message says what.
        """
        grammar = commands if isinstance(commands, Grammar) else read_grammar(Path(commands))
        return Control(self, grammar, threshold)

    def evaluate(self, task: TaskName, data: str | os.PathLike[str], **wishes: Any) -> Evaluation:
        """Score the model's answers and their times, beside those of other programs; see docs/evaluation.md.

        Nothing is asked until the evaluation is iterated, for outcomes as they are made, or asked for its `rows`.

        Args:
            task: "asr", "tts", "chat" or "voicebench".
            data: file or folder.
            wishes: `peers` (name to file), `out`, `normaliser`, `name`, `limit`, `system`, `seed`, `max_new_tokens`; of
                tts `voice`, `judge`, `judge_file`, `sounds`; of chat `output`, `judge`; of voicebench `output`,
                `modality`.

        Raises:
            UsageError: something in the data or in a peer's file cannot be read.
            MissingDependency: the extra `eval` is not installed.
        """
        from voxrill.runtime.apps.evaluation.evaluating import evaluate  # its modules import this one

        return evaluate(self, task, data, **wishes)

    def conversation(self, *, system: str | None = None, output: Output = "both") -> Conversation:
        """A conversation of several turns, each of which knows those before.

        Args:
            system: another system prompt than the family's own for this output.
            output: what turns answer with unless they say otherwise.
        """
        tasks = self.manifest.tasks
        return Conversation(self, tasks.write if output == "text" else tasks.chat, system, output)


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
        warnings.warn(f"nodes that fell back to the CPU: {counts}; --strict refuses that", Fallback, stacklevel=4)


def _voice(task: Task, voice: str | None) -> str:
    if voice is None:
        return task.voice
    known = {name.casefold(): name for name in task.voices}
    if known and voice.casefold() not in known:
        raise UsageError(f"there is no voice {voice!r}", f"This model has: {', '.join(task.voices)}")
    return known.get(voice.casefold(), voice)


class Speech:
    """Speech as it is made: iterate it for `AudioEvent`s, or take it whole.

    It is computed once; iterating again gives the same events.
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
        """The whole result; computes what is still missing."""
        for _ in self:
            pass
        assert self._result is not None
        return self._result

    @property
    def samples(self) -> Any:
        """All samples (n,) float32."""
        return self.result.samples

    def save(self, path: str | os.PathLike[str]) -> Result:
        """Write a 16-bit WAV, frame by frame as it is made; the file appears when it is whole.

        Raises:
            AudioFileError: the file cannot be written.
        """
        save_audio(self, path, self.sample_rate)
        return self.result


def save_audio(events: Iterable[AudioEvent], path: str | os.PathLike[str], sample_rate: int) -> None:
    """Write the sound of `events` to a 16-bit WAV as it comes."""
    with WavWriter(path, sample_rate) as writer:
        for event in events:
            writer.write(event.samples)
