"""What computes a program's values: engines, a module on a device, inputs that fit."""
