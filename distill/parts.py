"""What a run is made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from data.tokens import DomainTokens
from distill.reading import Readings
from distill.task import Task
from distill.teacher import Teacher


@dataclass(frozen=True)
class Parts:
    """What the loop turns: readings in, a task to train, a teacher to ask, held-out rows to look at."""

    task: Task
    teacher: Teacher
    readings: Readings
    valid: Mapping[str, DomainTokens]
    pad: int
    """Of the teacher's vocabulary."""
    student_pad: int
