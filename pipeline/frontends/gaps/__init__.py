"""What the compiler cannot take, or computes wrong: asked once a release, and decomposed."""
