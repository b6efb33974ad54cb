"""What the peers published on Flickr30K-CN, zero-shot, 1K test: to be shown beside a student's scores."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """A model with its recalls at 1, 5, 10, text to image and image to text, and their mean, in percent."""

    model: str
    t2i: tuple[float, float, float]
    i2t: tuple[float, float, float]
    mr: float


FLICKR30K_CN = (
    Peer("OpenAI CLIP L/14 fed Chinese", (0.0, 2.4, 4.0), (2.3, 8.1, 12.6), 5.0),
    Peer("Taiyi-326M L/14", (53.8, 79.9, 86.6), (64.0, 90.4, 96.1), 78.5),
    Peer("Wukong L/14", (51.7, 78.9, 86.3), (76.1, 94.8, 97.5), 80.9),
    Peer("SkyCLIP L/14", (58.8, 82.6, 89.6), (78.8, 96.1, 98.3), 84.0),
    Peer("CN-CLIP B/16", (62.7, 86.9, 92.8), (74.6, 93.5, 97.1), 84.6),
    Peer("R2D2 L/14", (60.9, 86.8, 92.7), (77.6, 96.7, 98.9), 85.6),
    Peer("CN-CLIP L/14", (68.0, 89.7, 94.4), (80.2, 96.6, 98.2), 87.9),
    Peer("AltCLIP L/14", (69.8, 89.9, 94.7), (84.8, 97.4, 98.8), 89.2),
    Peer("OpenCLIP XLM-R-L H/14", (71.0, 90.5, 94.9), (86.1, 97.5, 99.2), 89.9),
    Peer("InternVL-G", (77.7, 94.8, 97.3), (92.9, 99.4, 99.8), 93.7),
)
PUBLISHED = {"Flickr30K-CN": FLICKR30K_CN}
CEILING = Peer("OpenAI CLIP L/14 on English Flickr30K", (65.0, 87.2, 92.0), (85.2, 97.4, 99.2), 87.7)
