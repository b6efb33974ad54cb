"""Twin pictures: the same seeds and the same UNet under two encoders."""
