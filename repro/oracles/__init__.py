"""Whether a candidate still fails in the same way: asked of the compiler, of the runtime."""
