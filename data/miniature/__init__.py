"""The miniature: a controlled bilingual world of drawn scenes whose truth is known."""
