"""Same-seed pictures of a fixed UNet under two encoders."""
