"""What is thought of tonight's outcomes: new, known, fixed, flaky, slower."""
