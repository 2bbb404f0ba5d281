"""The report: one HTML page that answers, needs nothing from outside, and prints; and its figures as files for papers."""
