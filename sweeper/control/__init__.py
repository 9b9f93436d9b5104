"""Steering a sweep from outside: requests that are written to the study, and what became of them.

check.py    whether a request can be met, asked by whoever sends it and again by the driver
send.py     writing one and waiting for the driver's answer

What requests and their outcomes are, and where they lie in the storage, is the study's: `sweeper.study.control_box`.
"""
