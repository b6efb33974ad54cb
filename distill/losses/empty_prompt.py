"""The empty prompt's own term."""

from dataclasses import dataclass, field

from distill.losses.step import Schedule, Step, Terms


@dataclass(frozen=True)
class EmptyPrompt:
    """All slots of the empty prompt, the unconditional side of guidance.

    Guidance at scale s multiplies an error here by 1 - s, -6.5 at 7.5. The squared error over the teacher's squared
    norm, both summed over all slots: mean ||s - t||^2 / mean ||t||^2.
    """

    weight: float = 1.0
    schedule: Schedule = field(default_factory=Schedule)

    def terms(self, step: Step) -> Terms:
        """`empty_prompt`, the same on every rank."""
        assert step.empty is not None
        ours, theirs = step.empty.student.tokens, step.empty.teacher.tokens
        slots = min(ours.shape[1], theirs.shape[1])
        ours, theirs = ours[:, :slots], theirs[:, :slots]
        return {"empty_prompt": self.weight * (ours - theirs).square().sum() / theirs.square().sum()}
