"""The weights of a model: found, checked before any use, then loaded, or used where they lie.

checkpoints: files, from their headers. compare, reasons: what does not fit, and why. plan: a
checkpoint against its model. read: values, one at a time. stored: tensors used from the files
that hold them. load: values into models.
"""
