"""Agents whose program runs commands of ours at certain moments: Claude Code, Codex, Gemini.

`engine` decides, `dialects` is the table of what each program calls its moments and reads as an answer, `windows` knows
which window of the program is which agent, `words` is what a model reads, `waiter` wakes an idle one.
"""
