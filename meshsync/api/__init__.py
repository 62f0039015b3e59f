"""The control API: HTTP on a Unix socket of the data directory and, on request, on localhost.

`server` listens, `app` joins the routes, `routes` is the one table of them, and the other modules hold the
handlers by subject.  The command line is a client of this API and has no other way in.
"""
