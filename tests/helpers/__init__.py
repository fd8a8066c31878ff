"""What tests share: small data sets, media files, plain restatements of the model."""
