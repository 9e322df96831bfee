"""Tools for chat models: what a pipeline can do with pictures, called one by one or by a program of the model's.

In the manner of Visual ChatGPT (arXiv 2303.04671), whose language model knows pictures by their names and calls one
tool after another, and of ViperGPT (arXiv 2303.08128), whose language model writes a program that calls them.
"""
