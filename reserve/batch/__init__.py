"""The contract between data and model: vocabulary, token streams, packed sequences. No disk access, no nn.Module."""
