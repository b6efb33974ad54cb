"""Training of the miniature's own models: recogniser, CLIP, autoencoder, denoiser."""
