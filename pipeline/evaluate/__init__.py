"""Programs that PyTorch does not know, evaluated in numpy: a path that shares nothing with codegen.

`evaluation.evaluate` is asked; a child (`evaluator_child`) does the work.
"""
