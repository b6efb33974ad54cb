"""Generative adversarial networks of miniature pictures: a DCGAN, and a conditional one that reads a text vector."""
