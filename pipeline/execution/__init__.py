"""Execution of programs: engines, modules on devices, inputs that fit."""
