"""The names of a bundle's graphs, written once. They are keys of the manifest, names of files, and what users type."""

AUDIO_ENCODER = "audio_encoder"
DECODER = "decoder"
DECODER_PREFILL = "decoder_prefill"
TEXT_HEAD = "text_head"
DEPTHFORMER = "depthformer"
MIMI_DECODER = "mimi_decoder"
AUDIO_DETOKENIZER = "audio_detokenizer"
DEPTH_DECODER = "depth_decoder"
CODEC_DECODER = "codec_decoder"

CODECS = (AUDIO_DETOKENIZER, MIMI_DECODER, CODEC_DECODER)
"""A bundle has one of them: it turns codes into sound."""
