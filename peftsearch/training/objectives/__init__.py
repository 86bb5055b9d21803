"""What is trained for, and what is evaluated: a file for each output of a task."""
