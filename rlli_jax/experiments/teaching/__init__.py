"""Studies of teaching: a language model teaches a student, and the student the model."""
