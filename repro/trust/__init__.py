"""Reproducer folders of strangers: data until their user says otherwise."""
