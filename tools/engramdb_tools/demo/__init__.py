"""The demo: four weeks in the memory of an agent, run on a real database. `make demo` starts it.

story.jsonl   what happened, written for this demo: memories, revisions, connections
story.py      reads it and saves it
stage.py      how things look in a terminal
beliefs.py    the steps inside one process: remember, recall, revise, look back, connect, undo
processes.py  the steps with a second process: a reader, and a writer that is killed
space.py      the steps about the disk: dropping history, and verifying what is left
writer.py     the process that is killed
reader.py     the process that reads
"""
