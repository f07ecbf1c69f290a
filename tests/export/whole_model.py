"""The exporter's modules under one roof: a model with the parameter names and the ties of the reference's."""

from pathlib import Path

import torch
from torch import nn

from voxrill.export.audio_encoder import AudioEncoderModule, EncoderConfig
from voxrill.export.checkpoint import Checkpoint, open_checkpoint
from voxrill.export.decoder import DecoderModule
from voxrill.export.depthformer import DepthformerConfig, DepthformerModule
from voxrill.export.graphs import AUDIO_TABLE
from voxrill.export.lfm import LfmConfig


class WholeModel(nn.Module):
    """All weights of a checkpoint but its codec's, to be saved by the libraries that trainers use."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        checkpoint = open_checkpoint(folder)
        weights = checkpoint.weights
        encoder = _filled(lambda: AudioEncoderModule(EncoderConfig.read(checkpoint)), checkpoint)
        depth = _filled(lambda: DepthformerModule(DepthformerConfig.read(checkpoint)), checkpoint)
        self.conformer, self.audio_adapter = encoder.conformer, encoder.audio_adapter
        for layer in self.conformer.layers:  # convolutions as libraries know them: ours compute them as products
            layer.conv.pointwise_conv1 = _convolution(layer.conv.pointwise_conv1)
        self.lfm = _filled(lambda: DecoderModule(LfmConfig.read(checkpoint.value("lfm"))), checkpoint).lfm
        self.lfm.embed_tokens = nn.Embedding.from_pretrained(weights.read("lfm.embed_tokens.weight"))
        self.audio_embedding = nn.Module()
        self.audio_embedding.embedding = nn.Embedding.from_pretrained(weights.read(AUDIO_TABLE))
        self.depthformer, self.depth_linear = depth.depthformer, depth.depth_linear
        self.depth_embeddings = depth.depth_embeddings
        for book in self.depth_embeddings:
            book.to_logits.weight = book.embedding.weight


def _filled(make, checkpoint: Checkpoint) -> nn.Module:
    with torch.device("meta"):
        module = make()
    checkpoint.weights.load(module)
    return module


def _convolution(product: nn.Conv1d) -> nn.Conv1d:
    convolution = nn.Conv1d(product.in_channels, product.out_channels, product.kernel_size)
    convolution.load_state_dict(product.state_dict())
    return convolution.requires_grad_(False)
