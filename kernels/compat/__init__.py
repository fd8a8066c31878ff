"""The calls of other libraries, computed by the ops of this one: change the import and keep the code.

Each module takes the place of a library's: `open_clip` (ClipLoss, SigLipLoss), `whisper` (log_mel_spectrogram),
`torchaudio` (MelSpectrogram) and `transformers` (feature extractors). The tests compare each with its original. What an
original does and the module does not is an error that says so.
"""
