"""LFM3-Audio's modules in torch, held to llama.cpp's answers with a tiny model (tests/golden/lfm3)."""

import numpy as np
import pytest

from tests.export.lfm3_golden import config, expected, weights

torch = pytest.importorskip("torch", reason="the export extra is not installed")


@pytest.fixture(scope="module")
def made(exporter):
    """`made(name)`: a module with the golden weights."""
    from voxrill.export.lfm3 import modules
    from voxrill.export.lfm3.sizes import Lfm3Sizes

    sizes = Lfm3Sizes.read(weights(), config())
    return lambda name, *fixed: getattr(modules, name)(weights(), sizes, *fixed)


class Backbone:
    """The decoder with its state, row after row."""

    def __init__(self, made):
        self.decoder, self.head = made("decoder"), made("text_head")
        self.table = weights().read("lfm.embed_tokens.weight")
        self.length, stack = 0, self.decoder.lfm.config
        self.state = []
        for kind in stack.kinds:
            if kind == "conv":
                self.state.append(torch.zeros(1, stack.hidden, stack.kernel - 1))
            else:
                rows = 200 if kind == "full_attention" else self.decoder.backbone.window - 1
                self.state += [torch.zeros(1, stack.kv_heads, rows, stack.head_dim)] * 2

    def forward(self, rows):
        self.length += len(rows)
        with torch.inference_mode():
            hidden, *self.state = self.decoder(rows[None], torch.ones(1, self.length, dtype=torch.int64), *self.state)
        return hidden[0]

    def tokens(self, ids):
        return self.forward(self.table[torch.tensor(ids)])

    def logprobs(self, hidden):
        return torch.log_softmax(self.head(hidden[-1:])[0], -1).numpy()


def greedy(backbone, hidden, steps):
    found, ids = [], []
    for _ in range(steps):
        found.append(backbone.logprobs(hidden))
        ids.append(int(found[-1].argmax()))
        hidden = backbone.tokens(ids[-1:])
    return np.stack(found), ids


def state_of(config):
    return [torch.zeros(tensor.shape) for tensor in config]


def test_text_after_a_written_prompt(made):
    backbone = Backbone(made)
    logprobs, ids = greedy(backbone, backbone.tokens(expected()["text_prompt"]), 8)
    assert np.abs(logprobs - expected()["text_logprobs"]).max() < 1e-4
    assert ids == expected()["text_ids"].tolist()


def encode(made, mel, pieces):
    """Rows of mel (bands, T), given in pieces of so many frames."""
    encoder = made("encoder")
    state, rows, offset = state_of(encoder.config.state()), [], 0
    for frames in pieces:
        piece, mel = mel[:, :frames], mel[:, frames:]
        with torch.inference_mode():
            some, count, *state = encoder(
                torch.tensor(piece.T.copy())[None], torch.tensor([piece.shape[1]]), torch.tensor([offset]), *state
            )
        offset += int(count)
        rows.append(some[0, : int(count)])
    return torch.cat(rows)


@pytest.mark.parametrize("pieces", [[104], [8] * 13, [32, 8, 64]], ids=str)
def test_encoder_rows_in_pieces(made, pieces):
    rows = encode(made, expected()["mel"], pieces)
    assert np.abs(rows.numpy() - expected()["rows"]).max() < 1e-5


def test_the_last_piece_may_have_any_length(made):
    mel = expected()["mel"]
    for frames in (1, 2, 3, 5, 7, 8, 9, 13, 99):
        whole = encode(made, mel[:, :frames], [frames])
        pieces = encode(made, mel[:, :frames], [8] * (frames // 8) + [frames % 8] * bool(frames % 8))
        assert len(whole) == -(-frames // 8)
        assert (whole - pieces).abs().max() < 1e-5


def test_text_after_a_spoken_clip(made):
    golden, backbone = expected(), Backbone(made)
    rows = encode(made, golden["mel"].astype(np.float16).astype(np.float32), [104])
    backbone.tokens(golden["asr_prompt_before"])
    backbone.forward(rows)
    logprobs, ids = greedy(backbone, backbone.tokens(golden["asr_prompt_after"]), 8)
    assert np.abs(logprobs - golden["asr_logprobs"]).max() < 2e-4
    assert ids == golden["asr_ids"].tolist()


def speak(made):
    """Hidden states, first-pass logits and codes of 8 frames, as the golden speech was made."""
    golden, backbone, depth = expected(), Backbone(made), made("depth_decoder")
    table, codes = weights().read("codebook_embedding.weight"), depth.config.codes
    starts, penalty = torch.arange(12) * codes, torch.ones(12, codes)
    hidden, found = backbone.tokens(golden["tts_prompt"])[-1:], []
    for order in golden["tts_permutations"]:
        with torch.inference_mode():
            drawn, logits = depth(
                hidden, torch.ones(1), torch.ones(1, dtype=torch.int64), torch.zeros(12, codes),
                torch.tensor(order), penalty,
            )  # fmt: skip
        found.append((hidden[0], logits, drawn))
        penalty[torch.arange(12), drawn] = 1.1
        hidden = backbone.forward(table[starts + drawn].sum(0, keepdim=True))
    return found


def test_frames_of_speech(made):
    golden = expected()
    for frame, (hidden, logits, codes) in enumerate(speak(made)):
        assert np.abs(hidden.numpy() - golden["tts_hidden"][frame]).max() < 1e-4
        first = golden["tts_permutations"][frame][:4]  # drawn in the first pass: their logits are that pass's
        assert np.abs(logits[first].numpy() - golden["tts_first_pass_logits"][frame][first]).max() < 1e-4
        assert codes.tolist() == golden["tts_codes"][frame].tolist()


@pytest.mark.parametrize("pieces", [[8], [1] * 8, [3, 5]], ids=str)
def test_samples_of_speech(made, pieces):
    from voxrill.runtime.engine.istft import OverlapAdd

    codec, codes, offset, sound = made("codec_decoder"), expected()["tts_codes"].T, 0, []
    spec = codec.config.spec()
    state, ends = state_of(spec.state), OverlapAdd(spec.n_fft, spec.hop)
    for frames in pieces:
        piece = torch.tensor(codes[:, offset : offset + frames].copy())[None]
        with torch.inference_mode():
            features, *state = codec(piece, torch.tensor([offset]), *state)
        offset += frames
        sound.append(ends.push(features[0].numpy()))
    samples = np.concatenate([*sound, ends.flush()])
    assert samples.shape == (15_360,)
    assert np.abs(samples - expected()["tts_wave"]).max() < 1e-5


def test_the_computed_table_of_codes_is_a_grid(exporter):
    from voxrill.export.lfm3.modules import fsq_table

    table = fsq_table()
    assert table.shape == (2016, 4) and len(torch.unique(table, dim=0)) == 2016
    assert table[0].tolist() == [-1, -1, -1, -1]
    assert table[1].tolist() == [-0.75, -1, -1, -1]  # the first number changes fastest
    assert torch.allclose(table[-1], torch.tensor([3 / 4, 1.0, 2 / 3, 2 / 3]))
