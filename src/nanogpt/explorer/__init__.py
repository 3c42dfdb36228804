"""A page that looks inside your own models while they read, write and learn.

The Python side, in the order in which to read it: `runs` (which models there are, at which moments
of their training), `places` (which line of the package does what the page shows), `remote` (what a
model computes, for the page), `passages` (where the training text ends as a text does), `step`
(what one more step of training would change), `questions` (these two over HTTP), `replay`
(a training, watched again), `studies` (that and the search for a circuit, told piece by piece),
`bodies` (what requests have in common), `routes` (all of it over HTTP), `publish` (all of it in one
file). The page itself stands in `web/`: plain JavaScript with an engine of its own, which does the
same in the browser.
"""
