"""Answers to multi-turn questions, scored from 1 to 10 by a judge behind an OpenAI-compatible endpoint."""
