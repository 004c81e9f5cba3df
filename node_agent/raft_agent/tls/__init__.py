"""Certificates: who is who, who may do what, and the contexts that connections are made with.

`authority` makes certificates, `certificate` reads what one says, `credentials` holds those of a
running node or client, `identity` is what the rest of the program knows of them. Nothing is
imported here: the library behind it is for those who use it.
"""
