"""Steering a sweep from outside: requests that are written to the study, and what became of them.

records.py  what a request and its outcome are; pure
check.py    whether a request can be met, asked by whoever sends it and again by the driver
box.py      where they lie in the study's storage
send.py     writing one and waiting for the driver's answer
"""
