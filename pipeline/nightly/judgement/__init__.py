"""Classification of tonight's outcomes: new, known, fixed, flaky, slower."""
