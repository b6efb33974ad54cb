"""How the miniature's own models are made: recogniser, CLIP, autoencoder, denoiser."""
