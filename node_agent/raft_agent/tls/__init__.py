"""Certificates: who is who, who may do what, and the contexts that connections are made with.

`authority` makes certificates, `identity` reads what one says, `credentials` holds those of a
running node or client. Nothing is imported here: the library behind it is for those who use it.
"""
