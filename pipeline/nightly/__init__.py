"""The nightly: many cases every night, remembered, compared with the nights before, and told."""
