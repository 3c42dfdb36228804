"""The learning path: lessons, exercises, and the judge that knows their usual mistakes."""
