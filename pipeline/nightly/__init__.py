"""The nightly: many cases every night, kept, compared with the nights before, and reported."""
