"""The figures of a bundle on drives that it never saw."""
